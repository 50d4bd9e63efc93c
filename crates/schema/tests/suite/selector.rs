//! Selectors: grammar, matching, and that printing and parsing are inverse.

use std::collections::BTreeMap;

use isopod_schema::fields;
use isopod_schema::selector::{FieldSelector, LabelSelector};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::kind;

#[test]
fn label_selectors_match() {
    fn check(text: &str, labels: Value, expected: bool) {
        let selector = LabelSelector::parse(text).expect(text);
        assert_eq!(selector.matches(labels.as_object()), expected, "{text} on {labels}");
        let again = LabelSelector::parse(&selector.to_string()).expect("prints what it parses");
        assert_eq!(again, selector);
    }
    let web = json!({"app": "web", "tier": "front", "n": "5"});
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("none!=db", true),
        ("app!=web", false),
        ("app in (db, web)", true),
        ("app notin (db,web)", false),
        ("none notin (a)", true),
        ("app", true),
        ("!app", false),
        ("!none", true),
        ("n>4", true),
        ("n>5", false),
        ("n < 6", true),
        ("app>1", false),
        ("none=", false),
        ("app in (web),!none", true),
    ] {
        check(text, web.clone(), expected);
    }
    check("app=", json!({"app": ""}), true);
    check("app", Value::Null, false);
}

#[test]
fn bad_selectors_are_refused() {
    fn check(text: &str, expected: &str) {
        let error = LabelSelector::parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    check("a=b,", "expected: identifier");
    check("=b", "expected: identifier");
    check("a in b", "expected: '('");
    check("a in (b", "expected: ','");
    check("a like b", "found 'like'");
    check("a=b c", "expected: ','");
    check("a>x", "must be an integer");
    check("-a=b", "must start and end");
    check("a=b!", "expected: ','");
    check("a=-b", "a valid label must");
}

#[test]
fn object_form() {
    fn check(selector: Value, labels: Value, expected: bool) {
        let parsed = LabelSelector::from_value(&selector).expect("valid");
        assert_eq!(parsed.matches(labels.as_object()), expected, "{selector}");
    }
    let labels = json!({"a": "1"});
    check(Value::Null, labels.clone(), false);
    check(json!({}), labels.clone(), true);
    check(json!({"matchLabels": {"a": "1"}}), labels.clone(), true);
    check(json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["2"]}]}), labels.clone(), true);
    check(json!({"matchExpressions": [{"key": "b", "operator": "Exists"}]}), labels.clone(), false);
    assert!(!LabelSelector::from_map(&json!({})).matches(labels.as_object()));
    assert!(LabelSelector::from_map(&json!({"a": "1"})).matches(labels.as_object()));
    for bad in [
        json!({"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        json!({"matchLabels": {"a b": "1"}}),
    ] {
        LabelSelector::from_value(&bad).expect_err("refused");
    }
}

#[test]
fn field_selectors() {
    fn check(text: &str, expected: bool) {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "a,b"}, "status": {"phase": "Running", "podIPs": [{"ip": "1"}, {"ip": "2"}]}});
        let selector = FieldSelector::parse(text).expect(text);
        assert_eq!(selector.matches(&fields::selectable(kind("pods"), &pod)), expected, "{text}");
        assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
    }
    for (text, expected) in [
        ("", true),
        ("metadata.name=p", true),
        ("metadata.name==p,metadata.namespace=n", true),
        ("metadata.name!=p", false),
        (r"spec.nodeName=a\,b", true),
        ("status.phase!=Failed", true),
        ("spec.hostNetwork=false", true),
        (r"status.podIPs=1\,2", true),
        ("spec.serviceAccountName=", true),
    ] {
        check(text, expected);
    }
    for bad in ["metadata.name", r"a=\x", "a=b=c"] {
        FieldSelector::parse(bad).expect_err(bad);
    }
    assert_eq!(FieldSelector::parse("spec.nodeName=x").expect("valid").exact("spec.nodeName"), Some("x"));
    assert!(!fields::is_selectable(kind("pods"), "spec.containers"));
    assert!(
        fields::is_selectable(kind("nodes"), "spec.unschedulable")
            && !fields::is_selectable(kind("nodes"), "metadata.namespace")
    );
    let event = json!({"regarding": {"kind": "Pod"}, "reportingController": "c"});
    let found = fields::selectable(kind("events.k8s.io/v1/events"), &event);
    let pick = |label: &str| found.get(label).map(String::as_str);
    assert_eq!(
        (pick("involvedObject.kind"), pick("regarding.kind"), pick("reportingComponent")),
        (Some("Pod"), Some("Pod"), Some("c"))
    );
}

fn label() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,4}"
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(pairs in prop::collection::vec((label(), prop::collection::vec(label(), 1..3), 0u8..4), 0..4)) {
        let text = pairs.iter().map(|(key, values, operator)| match operator {
            0 => format!("{key} in ({})", values.join(",")),
            1 => format!("{key} notin ({})", values.join(",")),
            2 => key.clone(),
            _ => format!("!{key}"),
        }).collect::<Vec<_>>().join(",");
        let selector = LabelSelector::parse(&text).expect("valid");
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn field_terms_survive_any_value(value in ".{0,8}") {
        let selector = FieldSelector { terms: vec![isopod_schema::selector::FieldTerm { key: "k".into(), value: value.clone(), equal: true }] };
        let parsed = FieldSelector::parse(&selector.to_string()).expect("escaped");
        prop_assert!(parsed.matches(&BTreeMap::from([("k".to_owned(), value)])));
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,24}") {
        let _ = LabelSelector::parse(&text).is_ok();
        let _ = FieldSelector::parse(&text).is_ok();
    }
}
