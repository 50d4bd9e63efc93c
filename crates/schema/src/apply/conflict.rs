//! Fields that somebody else owns, and upstream's words for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::element::Element;
use super::managers::{Manager, Operation};

/// A field that applying would change although another manager owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Manager,
    /// In words: name, subresource, version.
    pub owner: String,
    /// The field.
    pub path: Vec<Element>,
}

impl Conflict {
    pub(super) fn new(manager: &Manager, api_version: &str, path: Vec<Element>) -> Self {
        let mut owner = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            let _ = write!(owner, " with subresource {:?}", manager.subresource);
        }
        if manager.operation == Operation::Update {
            let _ = write!(owner, " using {api_version}");
        }
        Self { manager: manager.clone(), owner, path }
    }

    /// The field in words.
    pub fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// The message of the refusal.
pub fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.field());
    }
    let mut by_owner: BTreeMap<&Manager, Vec<&Conflict>> = BTreeMap::new();
    for conflict in conflicts {
        by_owner.entry(&conflict.manager).or_default().push(conflict);
    }
    let mut lines = Vec::new();
    for conflicts in by_owner.values() {
        lines.extend(conflicts.first().map(|first| format!("conflicts with {}:", first.owner)));
        lines.extend(conflicts.iter().map(|conflict| format!("- {}", conflict.field())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
