//! Any text as label selector, field selector, JSON path and set of fields.
#![no_main]

use isopod_schema::apply::Set;
use isopod_schema::crd::JsonPath;
use isopod_schema::selector::{FieldSelector, LabelSelector};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let object = json!({"metadata": {"labels": {"app": "web", "tier": "db"}}, "list": [{"type": "A", "x": 1}, 2]});
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what was written is a selector");
        assert_eq!(again.matches_object(&object), selector.matches_object(&object), "{text}");
    }
    drop(FieldSelector::parse(text));
    if let Ok(path) = JsonPath::parse(text) {
        path.first(&object);
    }
    let Ok(document) = serde_json::from_str::<Value>(text) else { return };
    if let Ok(selector) = LabelSelector::from_value(&document) {
        selector.matches_object(&object);
    }
    if let Ok(set) = Set::parse(&document) {
        assert_eq!(Set::parse(&set.to_value()).as_ref(), Ok(&set));
    }
});
