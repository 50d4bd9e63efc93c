//! Content negotiation (facts, section 1.6): which encoding comes in, which form goes out. Pure.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use isopod_schema::Status;
use isopod_schema::decode::Format;

use crate::query::Query;

const ACCEPTED: [&str; 2] = ["application/json", "application/yaml"];
const READ: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

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

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) yaml: bool,
    pub(crate) pretty: bool,
}

impl Output {
    pub(crate) const JSON: Self = Self { form: Form::Object, yaml: false, pretty: false };

    /// The client accepts the stored bytes as they are.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::JSON
    }
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

    fn output(&self) -> Option<Output> {
        let yaml = match self.media {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let meta = self.parameter("g") == Some("meta.k8s.io") && self.parameter("v") == Some("v1");
        let form = match self.parameter("as") {
            None => Form::Object,
            Some("Table") if meta => Form::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => Form::Metadata,
            Some(_) => return None,
        };
        Some(Output { form, yaml, pretty: self.parameter("pretty") == Some("1") })
    }
}

fn accepted(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// The form of the answer.
///
/// # Errors
/// 406 when nothing the client accepts can be made.
pub(crate) fn output(headers: &HeaderMap, query: &Query) -> Result<Output, Status> {
    let accept = accepted(headers);
    let chosen = if accept.is_empty() {
        Some(Output::JSON)
    } else {
        accept.split(',').map(|range| Range::parse(range.trim())).find_map(|range| range.output())
    };
    let mut chosen = chosen.ok_or_else(|| Status::not_acceptable(&ACCEPTED))?;
    chosen.pretty |= if query.has("pretty") { query.flag("pretty") } else { is_for_eyes(headers) };
    Ok(chosen)
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
        "application/vnd.kubernetes.protobuf" => Ok(Input::Protobuf),
        _ => Err(Status::unsupported_media_type(&READ)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_accept_decides_the_form() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let protobuf = "application/vnd.kubernetes.protobuf";
        let cases: [(String, Option<(Form, bool)>); 9] = [
            (String::new(), Some((Form::Object, false))),
            ("*/*".into(), Some((Form::Object, false))),
            (
                format!("{table},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
                Some((Form::Table, false)),
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json".into(), Some((Form::Object, false))),
            (
                format!("{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{metadata}"),
                Some((Form::Metadata, false)),
            ),
            (format!("{protobuf},application/json"), Some((Form::Object, false))),
            ("application/yaml".into(), Some((Form::Object, true))),
            (protobuf.into(), None),
            ("text/html".into(), None),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let found = output(&headers, &Query::default()).ok().map(|output| (output.form, output.yaml));
            assert_eq!(found, expected, "{accept}");
        }
    }
}
