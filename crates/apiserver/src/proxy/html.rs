//! Pages of a proxied server: their links are rewritten, everything else stays byte by byte. A page that is too large, or
//! packed in a way that is not understood, is passed on as it is.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::StreamExt;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;

use super::rewrite::Prefix;
use super::with_body;
use crate::body::Body;
use crate::respond::Response;

/// Largest page that is rewritten.
const PAGE_BYTES: usize = 4 << 20;

/// Attributes that are links.
const LINKS: [&str; 14] = [
    "href",
    "src",
    "action",
    "formaction",
    "background",
    "cite",
    "codebase",
    "data",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "usemap",
];
/// Elements whose content is no markup.
const RAW: [&str; 2] = ["script", "style"];

/// The same answer with its links leading through the proxy.
pub(super) async fn rewritten(answer: Response, prefix: &Prefix) -> Response {
    let encoding = answer.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let is_packed = match encoding.as_deref() {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return answer,
    };
    let (mut parts, body) = answer.into_parts();
    let mut stream = Box::pin(body.into_data_stream());
    let mut page = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else { return with_body(parts, broken(page.freeze())) };
        page.extend_from_slice(&chunk);
        if page.len() > PAGE_BYTES {
            let first = futures::stream::iter([Ok(page.freeze())]);
            return Response::from_parts(parts, Body::fallible(first.chain(stream.map(|chunk| chunk.map_err(|_| ())))));
        }
    }
    let page = page.freeze();
    let text = if is_packed { unpacked(&page) } else { Some(page.clone()) };
    match text {
        Some(text) => {
            parts.headers.remove(CONTENT_ENCODING);
            with_body(parts, Bytes::from(links(&text, prefix)))
        }
        None => with_body(parts, page),
    }
}

/// What there is of an answer that broke off.
fn broken(begun: Bytes) -> Body {
    Body::fallible(futures::stream::iter([Ok(begun), Err(())]))
}

fn unpacked(page: &[u8]) -> Option<Bytes> {
    let mut text = Vec::new();
    GzDecoder::new(page).take(PAGE_BYTES as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() <= PAGE_BYTES).then(|| text.into())
}

fn links(page: &[u8], prefix: &Prefix) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with(b"<!--") {
            find(rest, b"-->").map_or(rest.len(), |end| end + 3)
        } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
            let (end, raw) = tag(rest, prefix, &mut out);
            rest = &rest[end..];
            // What is no markup goes by as it is.
            raw.map_or(0, |name| end_of_raw(rest, name))
        } else {
            1
        };
        out.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    out
}

/// A page of a server at a place of its own, for a fuzz target.
#[cfg(fuzzing)]
pub(crate) fn page(page: &[u8]) -> Vec<u8> {
    let hosts = ["10.0.0.1".into(), "host".into()];
    links(page, &Prefix { path: "/proxy".into(), hosts })
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window.eq_ignore_ascii_case(pattern))
}

fn end_of_raw(text: &[u8], name: &str) -> usize {
    find(text, format!("</{name}").as_bytes()).unwrap_or(text.len())
}

/// Copies one opening tag; its length, and its name if what follows is no markup.
fn tag(text: &[u8], prefix: &Prefix, out: &mut Vec<u8>) -> (usize, Option<&'static str>) {
    let is_name = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'>' | b'/' | b'=' | b'"' | b'\'');
    let mut at = 1 + text[1..].iter().take_while(|byte| is_name(byte)).count();
    let raw = RAW.into_iter().find(|raw| text[1..at].eq_ignore_ascii_case(raw.as_bytes()));
    out.extend_from_slice(&text[..at]);
    while at < text.len() && text[at] != b'>' {
        let name = text[at..].iter().take_while(|byte| is_name(byte)).count();
        if name == 0 {
            out.push(text[at]);
            at += 1;
            continue;
        }
        let is_link = LINKS.iter().any(|link| text[at..at + name].eq_ignore_ascii_case(link.as_bytes()));
        out.extend_from_slice(&text[at..at + name]);
        at += name;
        let (before, value) = value(&text[at..]);
        out.extend_from_slice(&text[at..at + before]);
        let found = &text[at + before..at + before + value];
        match std::str::from_utf8(found) {
            Ok(link) if is_link => out.extend_from_slice(prefix.rewrite(link).as_bytes()),
            _ => out.extend_from_slice(found),
        }
        at += before + value;
    }
    (at, raw)
}

/// After a name: how many bytes come before the value of the attribute, and how many the value has.
fn value(text: &[u8]) -> (usize, usize) {
    let spaces = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut at = spaces(text);
    if text.get(at) != Some(&b'=') {
        return (0, 0);
    }
    at += 1;
    at += spaces(&text[at..]);
    match text.get(at) {
        Some(quote @ (b'"' | b'\'')) => {
            let rest = &text[at + 1..];
            (at + 1, rest.iter().position(|byte| byte == quote).unwrap_or(rest.len()))
        }
        _ => (at, text[at..].iter().take_while(|byte| !byte.is_ascii_whitespace() && **byte != b'>').count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> Prefix {
        Prefix { path: "/p".into(), hosts: ["10.0.0.1".into(), String::new()] }
    }

    #[test]
    fn links_of_pages_lead_back() {
        let table = [
            ("<a href=\"/x\">/x</a>", "<a href=\"/p/x\">/x</a>"),
            ("<A class=b HREF = '/x' >", "<A class=b HREF = '/p/x' >"),
            ("<img src=/i.png alt='/no'>", "<img src=/p/i.png alt='/no'>"),
            ("<form action=\"http://10.0.0.1/go\"/>", "<form action=\"/p/go\"/>"),
            ("<a href=\"http://other/x\"><a href=x>", "<a href=\"http://other/x\"><a href=x>"),
            ("<!-- <a href=\"/x\"> --><a href='/y'>", "<!-- <a href=\"/x\"> --><a href='/p/y'>"),
            (
                "<script src='/s'>if (a<b) '<a href=\"/x\">'</script><a href=/y>",
                "<script src='/p/s'>if (a<b) '<a href=\"/x\">'</script><a href=/p/y>",
            ),
            ("a < b <a href=\"/x", "a < b <a href=\"/p/x"),
            ("<a href", "<a href"),
            ("<a href=", "<a href="),
            ("<", "<"),
        ];
        for (page, expected) in table {
            assert_eq!(String::from_utf8(links(page.as_bytes(), &prefix())).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn pages_without_links_stay_byte_by_byte(page in proptest::collection::vec(prop_oneof![Just(b'<'), Just(b'>'), Just(b'='), Just(b'"'), Just(b' '), any::<u8>().prop_filter("no path", |byte| *byte != b'/')], 0..200)) {
            prop_assert_eq!(links(&page, &prefix()), page);
        }
    }
}
