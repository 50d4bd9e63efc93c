//! Any text as label selector, field selector, quantity, JSON path and field path.
#![no_main]

use isopod_schema::selector::{FieldSelector, LabelSelector};
use isopod_schema::{apply::Set, quantity};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let object = json!({"metadata": {"labels": {"app": "web", "tier": "db"}}});
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches_object(&object);
    }
    drop(FieldSelector::parse(text));
    if let Some(canonical) = quantity::canonical(text) {
        assert_eq!(quantity::canonical(&canonical).as_ref(), Some(&canonical), "{text}");
    }
    if let Ok(document) = serde_json::from_str(text)
        && let Ok(set) = Set::parse(&document)
    {
        assert_eq!(Set::parse(&set.to_value()).as_ref(), Ok(&set));
    }
});
