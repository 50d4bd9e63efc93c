//! What holds for server-side apply whatever is applied by whomever: for property tests and a fuzz target. Looks at objects
//! and `managedFields` only, never at how they were made.

use std::sync::{Arc, LazyLock};

use isopod_schema::apply::{self, Applied, ApplyError, Conflict, Element, Manager, Managers, Operation, Set, Writer};
use isopod_schema::{Kind, Table, crd};
use serde_json::{Value, json};

use crate::arbitrary::{self, Source};

/// Built-in kinds, of every form that fields can have.
const BUILT_IN: [(&str, &str, &str); 7] = [
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "nodes"),
    ("apps", "v1", "deployments"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
];
/// How many kinds there are: those, and a custom one.
pub const KINDS: usize = BUILT_IN.len() + 1;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Most writes in one story.
const STEPS_MAX: usize = 12;

/// An object, its owners, and what each applied last, as long as nobody took any of it.
#[derive(Clone)]
struct Story<'k> {
    kind: &'k Kind,
    object: Value,
    managers: Managers,
    configs: [Option<Value>; NAMES.len()],
    clock: u32,
}

/// Has forms that no built-in kind has.
pub static CUSTOM: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let item = json!({"type": "object", "properties": {
        "key": {"type": "string", "default": ""}, "value": {"type": "integer"}, "free": {"x-kubernetes-preserve-unknown-fields": true},
    }, "required": ["key"]});
    let list = |kind: &str, items: Value| json!({"type": "array", "x-kubernetes-list-type": kind, "items": items});
    let map = |kind: &str| json!({"type": "object", "x-kubernetes-map-type": kind, "additionalProperties": item});
    let mut keyed = list("map", item.clone());
    keyed["x-kubernetes-list-map-keys"] = json!(["key"]);
    let schema = json!({"type": "object", "properties": {
        "keyed": keyed, "set": list("set", json!({"type": "integer"})), "whole": list("atomic", item.clone()),
        "map": map("granular"), "unit": map("atomic"), "item": item,
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"keyed": keyed}},
    }});
    let names = json!({"plural": "tabs", "singular": "tab", "kind": "Tab", "listKind": "TabList"});
    crd::rows(&json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"acceptedNames": names},
    }))
    .remove(0)
});

/// Writes whatever the bytes say to one object of a kind, and demands that all laws hold after each write.
///
/// # Panics
/// When one does not.
pub fn hold(at: usize, bytes: &[u8]) {
    match BUILT_IN.get(at) {
        Some((group, version, plural)) => {
            hold_for(Table::builtin().resource(group, version, plural).expect("a built-in kind"), bytes);
        }
        None => hold_for(&CUSTOM, bytes),
    }
}

fn hold_for(kind: &Kind, bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut story =
        Story { kind, object: json!({}), managers: Managers::default(), configs: [const { None }; 3], clock: 0 };
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            return;
        }
        let (who, how) = (source.below(NAMES.len()), source.below(5));
        let document = arbitrary::document(kind.root(), &mut source);
        match how {
            0 => story.update(who, without_null(document)),
            1 => story.apply(who, document, true),
            _ => story.apply(who, document, false),
        }
    }
}

impl Story<'_> {
    fn attempt(&self, who: usize, config: &Value, force: bool, clock: u32) -> Result<Applied, ApplyError> {
        let (api_version, time) = (self.kind.api_version(), format!("2026-01-01T00:00:{clock:02}Z"));
        let writer = Writer { name: NAMES[who], api_version: &api_version, subresource: "", time: &time };
        apply::apply(self.kind, &self.object, config, self.managers.clone(), writer, force)
    }

    /// Somebody applies.
    fn apply(&mut self, who: usize, config: Value, force: bool) {
        self.clock += 1;
        if apply::check(self.kind, &config, &self.kind.api_version()).is_err() {
            return;
        }
        let forced = self.attempt(who, &config, true, self.clock).expect("what fits its type can be forced");
        let applied = match self.attempt(who, &config, force, self.clock) {
            Ok(applied) => applied,
            Err(ApplyError::Conflicts(conflicts)) if !force => return self.conflicted(&conflicts, &forced.managers),
            Err(error) => panic!("{config} cannot be applied: {error}"),
        };
        if applied == forced {
            self.others_keep(&Manager::new(Operation::Apply, NAMES[who], "", ""), &applied, !force);
        } else {
            panic!("force makes a difference without conflicts: {config}");
        }
        self.nobody_keeps(who, &applied);
        assert!(holds(&applied.object, &unordered(&config)), "{config} is not in {}", applied.object);
        let lost: Vec<bool> = (0..NAMES.len()).map(|other| self.loses(other, &applied.managers)).collect();
        (self.object, self.managers) = (applied.object, applied.managers);
        for other in (0..NAMES.len()).filter(|other| *other != who && lost[*other]) {
            self.configs[other] = None;
        }
        self.again(who, &config, |again, own| {
            assert_eq!(again.object.to_string(), own.object.to_string(), "applied again: {config}");
            assert_eq!(again.managers.to_value().to_string(), own.managers.to_value().to_string(), "{config}");
        });
        self.configs[who] = Some(config).filter(|config| !has_nothing(config));
        for (other, config) in self.configs.iter().enumerate() {
            self.again(other, config.as_ref().unwrap_or(&Value::Null), |again, own| {
                assert_eq!(unordered(&again.object), unordered(&own.object), "{} applied {config:?}", NAMES[other]);
                assert!(!own.loses(other, &again.managers), "{} applied {config:?}", NAMES[other]);
            });
        }
    }

    /// Somebody replaces the object.
    fn update(&mut self, who: usize, object: Value) {
        self.clock += 1;
        let (api_version, time) = (self.kind.api_version(), format!("2026-01-01T00:00:{:02}Z", self.clock));
        let writer = Writer { name: NAMES[who], api_version: &api_version, subresource: "", time: &time };
        let managers = apply::update(self.kind, &self.object, &object, self.managers.clone(), writer);
        let own = Manager::new(Operation::Update, NAMES[who], &api_version, "");
        self.others_keep(&own, &Applied { object: object.clone(), managers: managers.clone() }, false);
        for other in 0..NAMES.len() {
            if self.loses(other, &managers) {
                self.configs[other] = None;
            }
        }
        (self.object, self.managers) = (object, managers);
    }

    /// A conflict is about what somebody else owns and loses when it is forced.
    fn conflicted(&self, conflicts: &[Conflict], forced: &Managers) {
        assert!(!conflicts.is_empty());
        for Conflict { manager, path, .. } in conflicts {
            assert!(self.managers.0.get(manager).is_some_and(|entry| entry.set.has(path)), "{manager:?} {path:?}");
            assert!(!forced.0.get(manager).is_some_and(|entry| entry.set.has(path)), "{manager:?} {path:?}");
        }
    }

    /// The others have what they had, and it is as it was; by force, what is theirs no more has become different.
    fn others_keep(&self, own: &Manager, after: &Applied, is_peaceful: bool) {
        for (manager, entry) in self.managers.0.iter().filter(|(manager, _)| *manager != own) {
            let now = set_of(&after.managers, manager);
            let shown = || format!("{} by {own:?} became {}", self.object, after.object);
            assert!(now.paths().iter().all(|path| entry.set.has(path)), "{manager:?} was given fields: {}", shown());
            for path in entry.set.paths() {
                let (was, is) = (at(&self.object, &path), at(&after.object, &path));
                match now.has(&path) {
                    // An update may leave out structs; they count as empty then.
                    true if own.operation == Operation::Update && is.is_none() => {
                        assert!(was.is_none_or(|was| was.is_null() || was.is_object()), "{path:?} went: {}", shown());
                    }
                    true => assert!(is_kept(was, is), "{path:?} of {manager:?} changed: {}", shown()),
                    false => {
                        let is_fair = !is_peaceful || self.is_released(own, &after.managers, &path);
                        assert!(is_fair, "{path:?} of {manager:?} was taken: {}", shown());
                        assert!(was != is, "{path:?} of {manager:?} was taken as it is: {}", shown());
                    }
                }
            }
        }
    }

    /// The path is inside something that only this manager owned and owns no more: such things go with all that is in them.
    fn is_released(&self, own: &Manager, after: &Managers, path: &[Element]) -> bool {
        let before = set_of(&self.managers, own);
        let is_owned = |path: &[Element]| after.0.values().any(|entry| entry.set.has(path));
        (1..path.len()).map(|length| &path[..length]).any(|lead| before.has(lead) && !is_owned(lead))
    }

    /// What its last owner applies no more is gone, unless something in it is somebody's.
    fn nobody_keeps(&self, who: usize, after: &Applied) {
        let own = Manager::new(Operation::Apply, NAMES[who], "", "");
        for path in set_of(&self.managers, &own).paths() {
            let is_owned = after.managers.0.values().any(|entry| reaches(&entry.set, &path));
            let found = at(&after.object, &path).filter(|found| !is_hollow(&unordered(found)));
            assert!(is_owned || found.is_none(), "{path:?} is nobody's and still {found:?}: {}", after.object);
        }
    }

    fn loses(&self, who: usize, after: &Managers) -> bool {
        let manager = Manager::new(Operation::Apply, NAMES[who], "", "");
        set_of(&self.managers, &manager) != set_of(after, &manager)
    }

    /// Applying again, later, is no conflict.
    fn again(&self, who: usize, config: &Value, check: impl FnOnce(&Applied, &Self)) {
        if !config.is_null() {
            let again = self.attempt(who, config, false, 59);
            let again = again.unwrap_or_else(|error| panic!("{config} applied again by {}: {error}", NAMES[who]));
            check(&again, self);
        }
    }
}

/// As documents are that were decoded.
fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_null(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(without_null).collect(),
        other => other,
    }
}

fn set_of(managers: &Managers, manager: &Manager) -> Set {
    managers.0.get(manager).map(|entry| entry.set.clone()).unwrap_or_default()
}

/// The set has the path or a longer one.
fn reaches(set: &Set, path: &[Element]) -> bool {
    set.paths().iter().any(|own| own.starts_with(path))
}

/// The value at a path.
fn at<'v>(object: &'v Value, path: &[Element]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, element| match element {
        Element::Field(name) => value.get(name),
        Element::Index(at) => value.get(usize::try_from(*at).ok()?),
        Element::Value(wanted) => value.as_array()?.iter().find(|item| **item == wanted.0),
        Element::Key(keys) => value.as_array()?.iter().find(|item| {
            // The keys that an item need not say have these defaults.
            let default = |name: &str| if name == "protocol" { "TCP" } else { "" };
            keys.iter().all(|(name, wanted)| {
                item.get(name).map_or_else(|| wanted.0 == default(name), |found| *found == wanted.0)
            })
        }),
    })
}

/// What is inside may be somebody else's, and becomes what others put there; what has no inside is as it was.
fn is_kept(was: Option<&Value>, is: Option<&Value>) -> bool {
    let may_hold = |value: &Value| value.is_null() || value.is_object() || value.is_array();
    match (was, is) {
        (Some(Value::Object(_)), Some(Value::Object(_))) | (Some(Value::Array(_)), Some(Value::Array(_))) => true,
        // Go does not tell none, null and empty apart.
        (Some(was), Some(Value::Null)) => may_hold(was),
        (None | Some(Value::Null), is) => is.is_none_or(may_hold),
        (was, is) => was == is,
    }
}

fn is_hollow(value: &Value) -> bool {
    value.is_null() || value == &json!({}) || value == &json!([])
}

/// Nobody owns an empty list that he applies, and null may become what is as good as null: anybody may change those.
fn has_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty() || items.iter().any(has_nothing),
        Value::Object(fields) => fields.values().any(has_nothing),
        _ => false,
    }
}

/// Everything in the second value is in the first.
fn holds(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (_, Value::Null) => true,
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(name, part)| part.is_null() || value.get(name).is_some_and(|value| holds(value, part)))
        }
        (Value::Array(value), Value::Array(part)) => {
            part.iter().all(|part| value.iter().any(|value| holds(value, part)))
        }
        _ => value == part,
    }
}

/// Without regard to the order of anything, and without what is empty.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> =
                map.iter().map(|(name, value)| (name.clone(), unordered(value))).collect();
            entries.retain(|(_, value)| !is_hollow(value));
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            entries.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(unordered).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        other => other.clone(),
    }
}
