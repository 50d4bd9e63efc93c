//! Content negotiation (facts, section 1.6): which encoding comes in, which form goes out. Pure.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use isopod_schema::decode::Format;
use isopod_schema::{Kind, Status, protobuf};

use crate::query::Query;
use crate::route::RequestInfo;

/// What bodies may be and answers can be.
pub(crate) const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];
/// The same of watches.
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The encoding of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Text(Format),
    Protobuf,
}

/// The shape objects are returned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Object,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`.
    Metadata,
}

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
    pub(crate) pretty: bool,
}

impl Output {
    pub(crate) const JSON: Self = Self { form: Form::Object, encoding: Encoding::Json, pretty: false };

    /// The client accepts the stored bytes as they are.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::JSON
    }

    /// The client wants the kind's own messages.
    pub(crate) fn is_message(&self) -> bool {
        self.form == Form::Object && self.encoding == Encoding::Protobuf
    }
}

/// What can be made for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Objects of the kind in protobuf.
    messages: bool,
    /// One event after the other, which YAML has no form for.
    stream: bool,
    /// Tables and metadata.
    forms: bool,
}

impl Offer {
    pub(crate) fn of(kind: &Kind, info: &RequestInfo) -> Self {
        Self { messages: protobuf::is_encodable(kind.root()), stream: info.verb == "watch", forms: true }
    }

    /// A Status, which exists in every encoding.
    pub(crate) const STATUS: Self = Self { messages: true, stream: false, forms: false };
}

/// One media range of an Accept header.
struct Range<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        Self { media, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
    }

    /// Ranges are tried by falling `q`, then those that say more first, then in their order.
    fn rank(&self) -> (std::cmp::Reverse<u32>, bool, bool) {
        let q = self.parameter("q").and_then(|q| q.parse::<f64>().ok()).unwrap_or(1.0);
        (std::cmp::Reverse((q * 1_000.0) as u32), self.media.starts_with('*'), self.media.ends_with('*'))
    }

    fn output(&self, offer: Offer) -> Option<Output> {
        let encoding = match self.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" if !offer.stream => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => return None,
        };
        let meta = self.parameter("g") == Some("meta.k8s.io") && self.parameter("v") == Some("v1");
        let form = match self.parameter("as") {
            None if offer.messages || encoding != Encoding::Protobuf => Form::Object,
            // Tables have no messages.
            Some("Table") if meta && offer.forms && encoding != Encoding::Protobuf => Form::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta && offer.forms => Form::Metadata,
            _ => return None,
        };
        if self.parameter("stream").is_some_and(|stream| !matches!(stream, "" | "watch")) {
            return None;
        }
        Some(Output { form, encoding, pretty: self.parameter("pretty") == Some("1") })
    }
}

fn accepted(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn choose(headers: &HeaderMap, offer: Offer) -> Option<Output> {
    let accept = accepted(headers);
    if accept.is_empty() {
        return Some(Output::JSON);
    }
    let mut ranges: Vec<Range<'_>> = accept.split(',').map(|range| Range::parse(range.trim())).collect();
    ranges.sort_by_key(Range::rank);
    ranges.iter().find_map(|range| range.output(offer))
}

/// The form of the answer.
///
/// # Errors
/// 406 when nothing the client accepts can be made.
pub(crate) fn output(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Output, Status> {
    let types: &[&str] = if offer.stream { &STREAMS } else { &MEDIA_TYPES };
    let mut chosen = choose(headers, offer).ok_or_else(|| Status::not_acceptable(types))?;
    chosen.pretty |= if query.has("pretty") { query.flag("pretty") } else { is_for_eyes(headers) };
    Ok(chosen)
}

/// The form of a Status. A client that accepts none gets JSON: what went wrong matters more.
pub(crate) fn status_output(headers: &HeaderMap) -> Output {
    choose(headers, Offer::STATUS).unwrap_or(Output::JSON)
}

/// Terminals and browsers get indented JSON.
fn is_for_eyes(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/"].iter().any(|name| agent.starts_with(name))
}

/// The version of aggregated discovery that the client prefers to plain discovery, if it does.
pub(crate) fn aggregated(headers: &HeaderMap) -> Option<isopod_schema::discovery::Aggregated> {
    use isopod_schema::discovery::Aggregated;
    let accept = accepted(headers);
    let ranges = accept.split(',').map(|range| Range::parse(range.trim()));
    let first = ranges.into_iter().find_map(|range| {
        if range.media != "application/json" {
            return None;
        }
        Some(match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Aggregated::V2),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => Some(Aggregated::V2beta1),
            (None, _, _) => None,
            _ => return None,
        })
    });
    first.flatten()
}

/// The media type of the body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The encoding of the body.
///
/// # Errors
/// 415 when it is not supported.
pub(crate) fn input(headers: &HeaderMap) -> Result<Input, Status> {
    match media_type(headers) {
        "" | "application/json" => Ok(Input::Text(Format::Json)),
        "application/yaml" => Ok(Input::Text(Format::Yaml)),
        PROTOBUF => Ok(Input::Protobuf),
        _ => Err(Status::unsupported_media_type(&MEDIA_TYPES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const METADATA: &str = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

    fn check(offer: Offer, accept: &str, expected: Option<(Form, Encoding)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = output(&headers, &Query::default(), offer).ok().map(|output| (output.form, output.encoding));
        assert_eq!(found, expected, "{accept} {offer:?}");
    }

    #[test]
    fn what_clients_accept_decides_the_form() {
        use Encoding::{Json, Protobuf, Yaml};
        let all = Offer { messages: true, stream: false, forms: true };
        let watch = Offer { stream: true, ..all };
        let custom = Offer { messages: false, ..all };
        let object = |encoding| Some((Form::Object, encoding));
        let json_metadata = format!("application/json;{METADATA}");
        let metadata = format!("{PROTOBUF};{METADATA}");
        for offer in [all, watch, custom] {
            check(offer, "", object(Json));
            check(offer, "*/*", object(Json));
            check(offer, "application/*", object(Json));
            check(
                offer,
                &format!("{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
                Some((Form::Table, Json)),
            );
            check(offer, "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", object(Json));
            check(offer, &format!("{metadata},{json_metadata}"), Some((Form::Metadata, Protobuf)));
            check(offer, &json_metadata, Some((Form::Metadata, Json)));
            check(offer, "text/html", None);
            check(offer, "application/json;stream=other", None);
            // Tables have no messages: the next range counts.
            check(offer, &format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io,{TABLE}"), Some((Form::Table, Json)));
        }
        for offer in [all, watch] {
            check(offer, PROTOBUF, object(Protobuf));
            check(offer, &format!("{PROTOBUF},application/json"), object(Protobuf));
            check(offer, &format!("application/json,{PROTOBUF}"), object(Json));
            check(offer, &format!("application/json;q=0.8,{PROTOBUF};q=0.9"), object(Protobuf));
            check(offer, &format!("*/*,{PROTOBUF}"), object(Protobuf));
            check(offer, &format!("{PROTOBUF};stream=watch"), object(Protobuf));
        }
        check(custom, PROTOBUF, None);
        check(custom, &format!("{PROTOBUF},application/json"), object(Json));
        check(all, "application/yaml", object(Yaml));
        check(watch, "application/yaml", None);
    }
}
