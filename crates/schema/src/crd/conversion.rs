//! Conversion of custom objects by a webhook: what it is asked and what its answer has to be (facts, section 5). Who calls
//! it is the API server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::admission::{Target, target};
use crate::validate::FieldError;
use crate::walk;

const REVIEW_VERSION: &str = "apiextensions.k8s.io/v1";
/// What a webhook may change in an object's metadata.
const CHANGEABLE: [&str; 2] = ["labels", "annotations"];

/// The webhook that converts between the versions of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Where it is.
    pub target: Target,
    /// Certificates that it is trusted by, in PEM; empty for those of the system.
    pub ca_bundle: Vec<u8>,
}

/// The webhook of a definition, if it has one.
pub(super) fn read(definition: &Value) -> Option<Conversion> {
    let conversion = &definition["spec"]["conversion"];
    let client = &conversion["webhook"]["clientConfig"];
    (conversion["strategy"] == "Webhook").then(|| Conversion {
        target: target(client),
        ca_bundle: STANDARD.decode(walk::text(client, &["caBundle"])).unwrap_or_default(),
    })
}

/// Checks the part of a definition that names the webhook.
pub(super) fn check(conversion: &Value, errors: &mut Vec<FieldError>) {
    let webhook = &conversion["webhook"];
    let path = "spec.conversion.webhook";
    let client = &webhook["clientConfig"];
    let (url, service) = (walk::text(client, &["url"]), client["service"].is_object());
    match (url, service) {
        ("", false) => errors.push(FieldError::required(
            format!("{path}.clientConfig"),
            "exactly one of url or service is required; required when strategy is set to Webhook",
        )),
        ("", true) => {
            for field in ["namespace", "name"] {
                if walk::text(client, &["service", field]).is_empty() {
                    errors.push(FieldError::required(format!("{path}.clientConfig.service.{field}"), ""));
                }
            }
        }
        (_, true) => errors
            .push(FieldError::required(format!("{path}.clientConfig"), "exactly one of url or service is required")),
        (url, false) if !url.starts_with("https://") => {
            let text = "'https' is the only allowed URL scheme";
            errors.push(FieldError::invalid(format!("{path}.clientConfig.url"), url, text));
        }
        _ => {}
    }
    let versions = walk::items(webhook, &["conversionReviewVersions"]);
    if !versions.iter().any(|version| version == "v1") {
        let text = "must include at least one of v1";
        errors.push(FieldError::invalid(format!("{path}.conversionReviewVersions"), versions.to_vec(), text));
    }
}

/// What the webhook is sent.
pub fn review(uid: &str, api_version: &str, objects: &[Value]) -> Value {
    json!({
        "apiVersion": REVIEW_VERSION, "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
    })
}

/// The converted objects in an answer, in the order of `originals`.
///
/// # Errors
/// Why the answer is none.
pub fn read_answer(body: &[u8], uid: &str, api_version: &str, originals: &[Value]) -> Result<Vec<Value>, String> {
    let mut review: Value = serde_json::from_slice(body).map_err(|error| format!("the answer is no JSON: {error}"))?;
    if review["apiVersion"] != REVIEW_VERSION || review["kind"] != "ConversionReview" {
        let (version, kind) = (&review["apiVersion"], &review["kind"]);
        return Err(format!(
            "expected webhook response of {REVIEW_VERSION}, Kind=ConversionReview, got {version}, Kind={kind}"
        ));
    }
    let response = &mut review["response"];
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    if response["result"]["status"] != "Success" {
        let said = walk::text(response, &["result", "message"]);
        return Err(if said.is_empty() { "the webhook gives no reason".into() } else { said.to_owned() });
    }
    let Value::Array(objects) = response["convertedObjects"].take() else {
        return Err(format!("the webhook returned no objects, expected {}", originals.len()));
    };
    if objects.len() != originals.len() {
        return Err(format!("the webhook returned {} objects, expected {}", objects.len(), originals.len()));
    }
    let pairs = objects.into_iter().zip(originals).enumerate();
    pairs.map(|(at, (object, original))| checked(at, object, original, api_version)).collect()
}

/// A converted object is the same object: what identifies it stays, whatever the webhook says.
fn checked(at: usize, mut object: Value, original: &Value, api_version: &str) -> Result<Value, String> {
    let lead = format!("invalid converted object at index {at}");
    if object["apiVersion"] != api_version {
        return Err(format!(
            "{lead}: invalid groupVersion (requested {api_version}, received: {})",
            object["apiVersion"]
        ));
    }
    if object["kind"] != original["kind"] {
        return Err(format!("{lead}: invalid kind (expected {}, received: {})", original["kind"], object["kind"]));
    }
    for field in ["name", "namespace", "uid"] {
        let of = |object: &Value| walk::text(object, &["metadata", field]).to_owned();
        if of(&object) != of(original) {
            let field = if field == "uid" { "UID".to_owned() } else { field.to_owned() };
            return Err(format!("{lead}: invalid metadata: {field} may not be changed"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for field in CHANGEABLE {
        match object["metadata"].get(field).filter(|value| !value.is_null()) {
            Some(value) if is_texts(value) => metadata[field] = value.clone(),
            Some(_) => return Err(format!("{lead}: invalid metadata: {field} must be texts by name")),
            None => drop(metadata.as_object_mut().map(|metadata| metadata.shift_remove(field))),
        }
    }
    object["metadata"] = metadata;
    Ok(object)
}

fn is_texts(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_care() {
        let original = json!({
            "apiVersion": "g/v1", "kind": "K",
            "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}, "finalizers": ["f"]}, "spec": {"a": 1},
        });
        let converted = |change: &dyn Fn(&mut Value)| {
            let mut object = original.clone();
            object["apiVersion"] = "g/v2".into();
            change(&mut object);
            json!([object])
        };
        let answer = |objects: Value| {
            let response = json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects});
            json!({"apiVersion": REVIEW_VERSION, "kind": "ConversionReview", "response": response})
        };
        let good = answer(converted(&|object| {
            object["spec"] = json!({"b": 1});
            object["metadata"] = json!({"name": "n", "uid": "u", "labels": {"c": "d"}, "finalizers": []});
        }));
        let objects = read_answer(good.to_string().as_bytes(), "1", "g/v2", std::slice::from_ref(&original)).unwrap();
        assert_eq!(objects[0]["spec"], json!({"b": 1}));
        let metadata = json!({"name": "n", "uid": "u", "labels": {"c": "d"}, "finalizers": ["f"]});
        assert_eq!(objects[0]["metadata"], metadata);
        let mut failed = answer(json!([]));
        failed["response"]["result"] = json!({"status": "Failed", "message": "too old"});
        let mut other = answer(json!([]));
        other["response"]["uid"] = "2".into();
        let table = [
            (json!({}), "expected webhook response of"),
            (other, "expected response.uid=\"1\", got \"2\""),
            (failed, "too old"),
            (answer(json!([])), "returned 0 objects, expected 1"),
            (answer(json!({})), "returned no objects"),
            (answer(converted(&|object| object["apiVersion"] = "g/v1".into())), "requested g/v2, received: \"g/v1\""),
            (answer(converted(&|object| object["kind"] = "L".into())), "invalid kind"),
            (answer(converted(&|object| object["metadata"]["name"] = "m".into())), "name may not be changed"),
            (answer(converted(&|object| object["metadata"]["uid"] = "m".into())), "UID may not be changed"),
            (answer(converted(&|object| object["metadata"]["labels"] = json!({"a": 1}))), "labels must be texts"),
        ];
        for (answer, part) in table {
            let refused = read_answer(answer.to_string().as_bytes(), "1", "g/v2", std::slice::from_ref(&original));
            let why = refused.unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert!(read_answer(b"<html>", "1", "g/v2", &[]).unwrap_err().contains("no JSON"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_answer_makes_it_panic(text in "[{}:,\"a-z0-9\\[\\]]{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let original = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}});
            let inside = format!("{{\"apiVersion\":\"{REVIEW_VERSION}\",\"kind\":\"ConversionReview\",\"response\":{text}}}");
            for body in [text.as_bytes(), &bytes, inside.as_bytes()] {
                proptest::prop_assert!(read_answer(body, "1", "g/v2", std::slice::from_ref(&original)).is_err());
            }
        }
    }
}
