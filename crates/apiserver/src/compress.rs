//! Large answers about objects, compressed for clients that ask for it (facts, section 1.6). One chunk at a time as the client
//! takes them, so that a long list neither blocks others nor is held twice.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::body::Body;
use crate::negotiate::MEDIA_TYPES;
use crate::respond::Response;

/// Smaller answers are sent as they are; upstream's bound.
const LEAST_BYTES: u64 = 128 << 10;

/// The client would rather have its answer compressed.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && accepts_gzip(request.headers())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| {
        let mut parts = part.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// The same answer compressed, if it is about objects, known whole, and large.
pub(crate) fn apply(response: Response) -> Response {
    let media = response.headers().get(CONTENT_TYPE);
    if !media.is_some_and(|media| MEDIA_TYPES.iter().any(|known| media == known))
        || response.body().known_bytes().is_none_or(|bytes| bytes < LEAST_BYTES)
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, compressed(body))
}

fn compressed(body: Body) -> Body {
    // The fastest level: what costs is the processor, not the network.
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let state = (body.into_chunks().into_iter(), encoder);
    Body::stream(futures::stream::unfold(state, |(mut chunks, mut encoder)| async move {
        loop {
            let mut open = encoder.take()?;
            // Writing into memory cannot fail; were it to, the client sees an answer that breaks off.
            let bytes = match chunks.next() {
                Some(chunk) => {
                    open.write_all(&chunk).ok()?;
                    let bytes = std::mem::take(open.get_mut());
                    encoder = Some(open);
                    bytes
                }
                None => open.finish().ok()?,
            };
            if !bytes.is_empty() {
                return Some((Bytes::from(bytes), (chunks, encoder)));
            }
        }
    }))
}
