//! `metadata.managedFields`: who wrote which fields, how, in which version and when.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::set::{FieldsError, Set};

/// Most entries of managers that update; older ones are joined.
pub const MAX_UPDATERS: usize = 10;
/// Who owns the fields of joined entries.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes: what tells entries of `managedFields` apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// How.
    pub operation: Operation,
    /// Name.
    pub name: String,
    /// Of updates, the version they were made in; empty for apply, which has one entry whatever its version.
    pub api_version: String,
    /// Subresource that was written to; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// Who writes in this way, in this version.
    pub fn new(operation: Operation, name: &str, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self { operation, name: name.into(), api_version: api_version.into(), subresource: subresource.into() }
    }
}

/// What a manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The fields.
    pub set: Set,
    /// The version that the fields are of.
    pub api_version: String,
    /// When the manager last changed something; RFC 3339 in UTC with whole seconds, empty when not known.
    pub time: String,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(pub BTreeMap<Manager, Entry>);

/// `managedFields` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagersError {
    /// Neither Apply nor Update.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    Version,
    /// Another encoding of fields than `FieldsV1`.
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    /// Fields that cannot be read.
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

impl Managers {
    /// From the list in `metadata`.
    ///
    /// # Errors
    /// What [`ManagersError`] says.
    pub fn parse(list: &Value) -> Result<Self, ManagersError> {
        let mut managers = Self::default();
        for (at, value) in list.as_array().into_iter().flatten().enumerate() {
            let (manager, entry) = parse(at, value)?;
            managers.0.insert(manager, entry);
        }
        Ok(managers)
    }

    /// A list that asks for all entries to be dropped: an empty one, or one with an empty entry.
    pub fn is_reset(list: &Value) -> bool {
        match list.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([one]) => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        }
    }

    /// The list for `metadata`, in upstream's order: appliers first, then by time.
    pub fn to_value(&self) -> Value {
        let mut entries: Vec<(&Manager, &Entry)> = self.0.iter().collect();
        entries.sort_by(|(left, a), (right, b)| {
            let key = |manager: &Manager| (manager.operation, manager.name.clone(), manager.subresource.clone());
            let by_time = left.operation.cmp(&right.operation).then_with(|| a.time.cmp(&b.time));
            by_time
                .then_with(|| left.name.cmp(&right.name))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| key(left).cmp(&key(right)))
        });
        entries.into_iter().map(|(manager, entry)| write(manager, entry)).collect()
    }

    /// Joins the oldest updates of each version until there are at most [`MAX_UPDATERS`].
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(String, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, entry)| (entry.time.clone(), manager.clone()))
            .collect();
        updaters.sort();
        let mut excess = updaters.len().saturating_sub(MAX_UPDATERS);
        let mut first: BTreeMap<String, Manager> = BTreeMap::new();
        for (time, manager) in updaters {
            if excess == 0 {
                return;
            }
            match first.get(&manager.api_version) {
                None => {
                    first.insert(manager.api_version.clone(), manager);
                }
                Some(oldest) => {
                    let oldest = oldest.clone();
                    self.join(&oldest, &manager, time);
                    excess -= 1;
                }
            }
        }
    }

    /// Moves what two managers own to the entry for ancient changes of their version.
    fn join(&mut self, oldest: &Manager, manager: &Manager, time: String) {
        let bucket = Manager::new(Operation::Update, ANCIENT, &manager.api_version, "");
        let taken = BTreeSet::from([oldest, manager, &bucket]).into_iter().filter_map(|manager| self.0.remove(manager));
        let set = taken.fold(Set::EMPTY, |all, entry| all.union(entry.set));
        self.0.insert(bucket, Entry { set, api_version: manager.api_version.clone(), time });
    }
}

fn parse(at: usize, value: &Value) -> Result<(Manager, Entry), ManagersError> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagersError::Operation),
    };
    if text("apiVersion").is_empty() {
        return Err(ManagersError::Version);
    }
    if text("fieldsType") != "FieldsV1" {
        return Err(ManagersError::FieldsType(text("fieldsType").into(), at));
    }
    let set = value.get("fieldsV1").map_or(Ok(Set::EMPTY), Set::parse)?;
    let manager = Manager::new(operation, text("manager"), text("apiVersion"), text("subresource"));
    Ok((manager, Entry { set, api_version: text("apiVersion").into(), time: text("time").into() }))
}

fn write(manager: &Manager, entry: &Entry) -> Value {
    let mut value = Map::with_capacity(7);
    let mut put = |name: &str, text: &str| {
        if !text.is_empty() {
            value.insert(name.into(), text.into());
        }
    };
    put("manager", &manager.name);
    put("operation", manager.operation.as_str());
    put("apiVersion", &entry.api_version);
    put("time", &entry.time);
    put("fieldsType", "FieldsV1");
    value.insert("fieldsV1".into(), entry.set.to_value());
    if !manager.subresource.is_empty() {
        value.insert("subresource".into(), manager.subresource.as_str().into());
    }
    value.into()
}

/// The lists say the same but for times.
pub fn same_but_times(left: &Value, right: &Value) -> bool {
    let entries = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (left, right) = (entries(left), entries(right));
    let timeless = |mut entry: Value| {
        entry["time"] = json!("");
        entry
    };
    left.len() == right.len() && left.into_iter().zip(right).all(|(left, right)| timeless(left) == timeless(right))
}
