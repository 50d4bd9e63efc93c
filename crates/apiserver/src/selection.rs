//! Which objects a list or watch is about: label and field selectors over facts that are extracted once per entry.

use std::collections::BTreeMap;

use isopod_schema::selector::{FieldSelector, LabelSelector};
use isopod_schema::{Kind, Status, fields};
use isopod_store::Entry;
use serde_json::{Map, Value};

use crate::query::Query;
use crate::{codec, convert};

/// What selectors compare.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    labels: Map<String, Value>,
    fields: BTreeMap<String, String>,
}

impl Facts {
    fn of(kind: &Kind, bytes: &[u8]) -> Self {
        let Ok(object) = codec::decode(bytes) else { return Self::default() };
        let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        Self { labels, fields: fields::selectable(kind, &object) }
    }
}

/// Label and field selector of a request, in the labels of the stored kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// # Errors
    /// 400 for a selector that does not parse or a field label that the kind does not have.
    pub(crate) fn parse(kind: &Kind, query: &Query) -> Result<Self, Status> {
        let refuse = |error: isopod_schema::selector::SelectorError| Status::bad_request(error.0);
        let labels = query.get("labelSelector").map_or(Ok(LabelSelector::everything()), LabelSelector::parse);
        let selector = query.get("fieldSelector").map_or(Ok(FieldSelector::default()), FieldSelector::parse);
        let mut selection = Self { labels: labels.map_err(refuse)?, fields: selector.map_err(refuse)? };
        for term in &mut selection.fields.terms {
            if !fields::is_selectable(kind, &term.key) {
                return Err(Status::bad_request(fields::unsupported_text(kind, &term.key)));
            }
            term.key = convert::stored_label(kind, std::mem::take(&mut term.key));
        }
        Ok(selection)
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that is asked for, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// The one namespace that is asked for, if there is one.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.fields.exact("metadata.namespace")
    }

    pub(crate) fn matches(&self, kind: &Kind, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        if kind.custom.is_some() && !self.fields.is_everything() {
            // Which fields there are changes with the definition, so they are not kept with the entry.
            let facts = Facts::of(kind, &entry.value);
            return self.labels.matches(Some(&facts.labels)) && self.fields.matches(&facts.fields);
        }
        let derived = codec::derived(entry);
        let facts = derived.facts.get_or_init(|| Facts::of(kind, &entry.value));
        self.labels.matches(Some(&facts.labels)) && self.fields.matches(&facts.fields)
    }
}
