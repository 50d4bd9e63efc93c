//! Rules for access reviews, which are questions about a user and something that he might do. They have no metadata.

use serde_json::Value;

use super::{Errors, FieldError};
use crate::selector::FieldSelector;
use crate::table::Kind;
use crate::walk;

/// Group of the kinds.
const GROUP: &str = "authorization.k8s.io";

pub(super) fn check(kind: &Kind, review: &Value, errors: &mut Errors) {
    if kind.group != GROUP {
        return;
    }
    no_metadata(kind, review, errors);
    if kind.plural == "selfsubjectrulesreviews" {
        return;
    }
    let spec = &review["spec"];
    one_of(spec, errors);
    if kind.plural != "selfsubjectaccessreviews"
        && walk::text(spec, &["user"]).is_empty()
        && walk::items(spec, &["groups"]).is_empty()
    {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    for field in ["fieldSelector", "labelSelector"] {
        selector(&spec["resourceAttributes"][field], &format!("spec.resourceAttributes.{field}"), errors);
    }
    if kind.namespaced {
        local(review, errors);
    }
}

fn no_metadata(kind: &Kind, review: &Value, errors: &mut Errors) {
    let allowed: &[&str] = if kind.namespaced { &["managedFields", "namespace"] } else { &["managedFields"] };
    let is_said = |(name, value): (&String, &Value)| {
        let is_empty = value.is_null()
            || value.as_str() == Some("")
            || value.as_object().is_some_and(|map| map.is_empty())
            || value.as_array().is_some_and(Vec::is_empty);
        !allowed.contains(&name.as_str()) && !is_empty
    };
    if kind.plural != "selfsubjectrulesreviews" && review["metadata"].as_object().into_iter().flatten().any(is_said) {
        let why = if kind.namespaced { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", review["metadata"].clone(), why));
    }
}

/// It is about a resource or about a path.
fn one_of(spec: &Value, errors: &mut Errors) {
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"].clone(), why));
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, why));
        }
        _ => {}
    }
}

fn selector(selector: &Value, path: &str, errors: &mut Errors) {
    if !selector.is_object() {
        return;
    }
    let raw = walk::text(selector, &["rawSelector"]);
    match (raw.is_empty(), walk::items(selector, &["requirements"]).is_empty()) {
        (false, false) => {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, why));
        }
        (true, true) => {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(format!("{path}.requirements"), why));
        }
        _ => {}
    }
}

fn local(review: &Value, errors: &mut Errors) {
    let spec = &review["spec"];
    let named = walk::text(spec, &["resourceAttributes", "namespace"]);
    if spec["resourceAttributes"].is_object() && named != walk::text(review, &["metadata", "namespace"]) {
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", named, "must match metadata.namespace"));
    }
    if spec["nonResourceAttributes"].is_object() {
        let attributes = spec["nonResourceAttributes"].clone();
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            attributes,
            "disallowed on this kind of request",
        ));
    }
}

/// What a review says of the field selector of a request: the fields that it demands to be equal, with their values. What
/// cannot be read narrows nothing.
pub fn fields(selector: &Value) -> Vec<(String, String)> {
    let raw = FieldSelector::parse(walk::text(selector, &["rawSelector"])).unwrap_or_default();
    let raw = raw.terms.into_iter().filter(|term| term.equal).map(|term| (term.key, term.value));
    let listed = walk::items(selector, &["requirements"]).iter().filter_map(|requirement| {
        let [value] = walk::items(requirement, &["values"]) else { return None };
        let is_equal = requirement["operator"] == "In";
        is_equal.then(|| (walk::text(requirement, &["key"]).to_owned(), value.as_str().unwrap_or_default().to_owned()))
    });
    raw.chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::Table;

    fn check(plural: &str, review: Value, expected: &[&str]) {
        let kind = Table::builtin().resource(GROUP, "v1", plural).unwrap();
        let found: Vec<String> = super::super::review(kind, &review).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{plural} {review}: {found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{plural} {review}: {found}");
        }
    }

    #[test]
    fn questions_are_complete() {
        let pods = || json!({"verb": "get", "resource": "pods", "namespace": "n"});
        let (own, any, local) = ("selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews");
        check(own, json!({"spec": {"resourceAttributes": pods()}}), &[]);
        check(own, json!({"metadata": {"creationTimestamp": null}, "spec": {"nonResourceAttributes": {}}}), &[]);
        check(own, json!({"spec": {}}), &["spec.resourceAttributes: Invalid value"]);
        check(
            own,
            json!({"spec": {"resourceAttributes": pods(), "nonResourceAttributes": {"path": "/"}}}),
            &["cannot be specified in combination with resourceAttributes"],
        );
        check(own, json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": pods()}}), &["must be empty"]);
        check(any, json!({"spec": {"resourceAttributes": pods()}}), &["at least one of user or group"]);
        check(any, json!({"spec": {"groups": ["g"], "resourceAttributes": pods()}}), &[]);
        let in_namespace = |namespace: &str, spec: Value| json!({"metadata": {"namespace": namespace}, "spec": spec});
        let asked = || json!({"user": "u", "resourceAttributes": pods()});
        check(local, in_namespace("n", asked()), &[]);
        check(local, in_namespace("m", asked()), &["must match metadata.namespace"]);
        check(
            local,
            in_namespace("n", json!({"user": "u", "nonResourceAttributes": {}})),
            &["disallowed on this kind"],
        );
        check("selfsubjectrulesreviews", json!({"spec": {}}), &[]);
    }

    #[test]
    fn selectors_are_given_in_one_form() {
        let with =
            |selector: Value| json!({"spec": {"resourceAttributes": {"verb": "list", "fieldSelector": selector}}});
        let own = "selfsubjectaccessreviews";
        check(own, with(json!({"rawSelector": "a=b"})), &[]);
        check(own, with(json!({})), &["fieldSelector.requirements: Required value"]);
        let both = json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]});
        check(own, with(both.clone()), &["may not specified at the same time as requirements"]);
        assert_eq!(fields(&both), [("a".into(), "b".into()), ("a".into(), "b".into())]);
        let others = json!({"requirements": [
            {"key": "a", "operator": "NotIn", "values": ["b"]}, {"key": "a", "operator": "In", "values": ["b", "c"]},
        ]});
        assert_eq!(fields(&others), []);
        assert_eq!(fields(&json!({"rawSelector": "a!=b,c==d"})), [("c".into(), "d".into())]);
    }
}
