//! Descriptions of types and fields, if the build had them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::table::Table;

static DATA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prose.json.zst"));

/// Definition name to field name (empty for the type itself) to text.
type Texts = BTreeMap<String, BTreeMap<String, String>>;

fn fetched() -> &'static Texts {
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    TEXTS.get_or_init(|| {
        // Absent or spoilt prose costs descriptions, nothing else.
        let bytes = zstd::decode_all(DATA).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    })
}

/// The description of a field, or of the type when `field` is empty.
pub(super) fn text<'a>(table: &'a Table, definition: &str, field: &str) -> Option<&'a str> {
    let known = fetched().get(definition).and_then(|fields| fields.get(field)).map(String::as_str);
    known.or_else(|| {
        let rows = table.own_prose().iter();
        rows.into_iter().find(|(name, of, _)| name == definition && *of == field).map(|(_, _, text)| *text)
    })
}
