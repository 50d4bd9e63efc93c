//! Server-side apply: what becomes of objects, and what holds for all of them.

use std::collections::BTreeSet;

use isopod_schema::Kind;
use isopod_schema::apply::{
    self, Applied, ApplyError, Element, Manager, Managers, Operation, Set, Writer, refresh_last_applied,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{kind, laws};

fn writer<'a>(name: &'a str, api_version: &'a str) -> Writer<'a> {
    Writer { name, api_version, subresource: "", time: "2026-01-01T00:00:00Z" }
}

/// An object that several managers write to.
#[derive(Clone, Debug, PartialEq)]
struct Story {
    object: Value,
    managers: Managers,
}

impl Story {
    fn new() -> Self {
        Self { object: json!({}), managers: Managers::default() }
    }

    fn apply(&self, kind: &'static Kind, name: &str, config: &Value, force: bool) -> Result<Self, ApplyError> {
        let version = kind.api_version();
        apply::check(kind, config, &version)?;
        let applied = apply::apply(kind, &self.object, config, self.managers.clone(), writer(name, &version), force);
        applied.map(|Applied { object, managers }| Self { object, managers })
    }

    fn update(&self, kind: &'static Kind, name: &str, object: Value) -> Self {
        let version = kind.api_version();
        let managers = apply::update(kind, &self.object, &object, self.managers.clone(), writer(name, &version));
        Self { object, managers }
    }

    fn owned(&self, operation: Operation, name: &str) -> Value {
        let api_version = self.managers.0.values().next().map_or("", |entry| &entry.api_version);
        let entry = self.managers.0.get(&Manager::new(operation, name, api_version, ""));
        entry.map_or(Value::Null, |entry| entry.set.to_value())
    }
}

/// `first` by manager a, `second` by b without force, `third` by a again: the object then, and what each owns.
fn check(path: &str, steps: [Value; 3], object: Value, a: Value, b: Value) {
    let kind = kind(path);
    let mut story = Story::new();
    for (name, config) in ["a", "b", "a"].into_iter().zip(&steps) {
        story = story.apply(kind, name, config, false).unwrap_or_else(|error| panic!("{config}: {error}"));
    }
    assert_eq!(story.object, object, "after {steps:?}");
    assert_eq!(story.owned(Operation::Apply, "a"), a, "a's after {steps:?}");
    assert_eq!(story.owned(Operation::Apply, "b"), b, "b's after {steps:?}");
    assert_eq!(story.apply(kind, "a", &steps[2], false), Ok(story), "again after {steps:?}");
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_owns_it() {
    let spec = |spec: Value| json!({ "spec": spec });
    let fields = |fields: Value| json!({ "f:spec": fields });
    let name = |name: &str| json!({ "name": name });
    // An atomic map goes whole.
    check(
        "pods",
        [spec(json!({"nodeSelector": {"a": "b"}})), json!({}), json!({})],
        json!({}),
        Value::Null,
        Value::Null,
    );
    // A shared field stays, a struct that becomes empty goes.
    check(
        "pods",
        [spec(json!({"hostname": "x", "dnsConfig": {"options": []}})), spec(json!({"hostname": "x"})), json!({})],
        spec(json!({"hostname": "x"})),
        Value::Null,
        fields(json!({"f:hostname": {}})),
    );
    // Items of a keyed list: each is somebody's, and the order is that of who applied last.
    check(
        "pods",
        [
            spec(json!({"containers": [name("1"), name("2")]})),
            spec(json!({"containers": [name("3"), name("2")]})),
            spec(json!({"containers": [name("1")]})),
        ],
        spec(json!({"containers": [name("1"), name("3"), name("2")]})),
        fields(json!({"f:containers": {r#"k:{"name":"1"}"#: {".": {}, "f:name": {}}}})),
        fields(json!({"f:containers": {
            r#"k:{"name":"2"}"#: {".": {}, "f:name": {}}, r#"k:{"name":"3"}"#: {".": {}, "f:name": {}},
        }})),
    );
    // A set.
    let finalizers = |items: Value| json!({"metadata": {"finalizers": items}});
    check(
        "pods",
        [finalizers(json!(["a", "b"])), finalizers(json!(["b", "c"])), finalizers(json!(["a"]))],
        finalizers(json!(["a", "b", "c"])),
        json!({"f:metadata": {"f:finalizers": {"v:\"a\"": {}}}}),
        json!({"f:metadata": {"f:finalizers": {"v:\"b\"": {}, "v:\"c\"": {}}}}),
    );
    // Default keys of list items make an item the same whether they are written or not.
    let port = |port: Value| spec(json!({"ports": [port]}));
    check(
        "services",
        [
            port(json!({"port": 80})),
            port(json!({"port": 80, "protocol": "TCP", "name": "x"})),
            spec(json!({"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]})),
        ],
        spec(json!({"ports": [{"port": 80, "protocol": "TCP", "name": "x"}, {"port": 80, "protocol": "UDP"}]})),
        fields(json!({"f:ports": {
            r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}},
            r#"k:{"port":80,"protocol":"UDP"}"#: {".": {}, "f:port": {}, "f:protocol": {}},
        }})),
        fields(json!({"f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {
            ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {},
        }}})),
    );
    // Null and empty are applied too.
    check(
        "configmaps",
        [json!({"data": {"x": ""}}), json!({"data": {}}), json!({"data": null})],
        json!({"data": {}}),
        json!({"f:data": {}}),
        json!({"f:data": {}}),
    );
    check(
        "configmaps",
        [json!({"data": {"x": ""}}), json!({}), json!({"data": null})],
        json!({"data": {}}),
        json!({"f:data": {}}),
        Value::Null,
    );
    // Nobody owns an empty list, but who applies it has it.
    check(
        "pods",
        [json!({"metadata": {"labels": {"x": ""}}}), json!({}), finalizers(json!([]))],
        finalizers(json!([])),
        Value::Null,
        Value::Null,
    );
}

#[test]
fn what_displaces_fields_of_others_is_a_conflict() {
    let (kind, free) = (&**laws::CUSTOM, |free: Value| json!({"item": {"key": "k", "free": free}}));
    let story = Story::new().apply(kind, "a", &free(json!({"x": {"y": 1}})), false).unwrap();
    for other in [json!("text"), json!([]), json!(1)] {
        let refused = story.apply(kind, "b", &free(other.clone()), false).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Apply failed with 2 conflicts: conflicts with \"a\":\n- .item.free.x\n- .item.free.x.y",
            "{other}"
        );
        let forced = story.apply(kind, "b", &free(other.clone()), true).unwrap();
        assert_eq!((&forced.object, forced.owned(Operation::Apply, "a")["f:item"].get("f:free")), (&free(other), None));
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstreams_words() {
    let containers = |items: Value| json!({"spec": {"containers": items}});
    let table = [
        ("pods", json!({"spec": {"foo": 1}}), ".spec.foo: field not declared in schema"),
        ("pods", json!({"spec": []}), ".spec: expected map, got []"),
        ("pods", json!({"spec": {"containers": {}}}), ".spec.containers: expected list, got {}"),
        (
            "apps/v1/deployments",
            json!({"spec": {"replicas": "1"}}),
            ".spec.replicas: expected numeric (int or float), got \"1\"",
        ),
        ("pods", json!({"spec": {"hostNetwork": 1}}), ".spec.hostNetwork: expected boolean, got 1"),
        (
            "pods",
            containers(json!([{"name": "x"}, {"name": "x"}])),
            ".spec.containers: duplicate entries for key [name=\"x\"]",
        ),
        (
            "pods",
            containers(json!([{"image": "x"}])),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and \
             doesn't have default values for any key fields)",
        ),
        (
            "pods",
            containers(json!([null])),
            ".spec.containers: element 0: associative list with keys may not have a null element",
        ),
        (
            "pods",
            containers(json!([1])),
            ".spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            "pods",
            containers(json!([{"name": "x", "args": [1]}])),
            ".spec.containers[name=\"x\"].args[0]: expected string, got 1",
        ),
        (
            "pods",
            json!({"metadata": {"finalizers": ["a", "a"]}}),
            ".metadata.finalizers: duplicate entries for key [=\"a\"]",
        ),
        (
            "pods",
            json!({"metadata": {"finalizers": [{}]}}),
            ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
        (
            "pods",
            json!({"a": 1, "b": 2}),
            "errors:\n  .a: field not declared in schema\n  .b: field not declared in schema",
        ),
    ];
    for (path, config, expected) in table {
        let kind = kind(path);
        let refused = Story::new().apply(kind, "a", &config, false);
        assert_eq!(refused, Err(ApplyError::Config(expected.into())), "{config}");
    }
    let free = json!({"spec": {"containers": [{"name": "x", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}});
    assert!(Story::new().apply(kind("pods"), "a", &free, false).is_ok());
}

#[test]
fn an_update_owns_what_it_changes() {
    let pods = kind("pods");
    let pod = |labels: Value, image: &str| json!({"metadata": {"name": "p", "uid": "u", "labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let story = Story::new().update(pods, "u", pod(json!({"a": "1"}), "x"));
    let item = |fields: Value| json!({"f:containers": {r#"k:{"name":"c"}"#: fields}});
    let all = json!({".": {}, "f:image": {}, "f:name": {}});
    let labels = |labels: Value| json!({ "f:labels": labels });
    assert_eq!(
        story.owned(Operation::Update, "u"),
        json!({"f:metadata": labels(json!({".": {}, "f:a": {}})), "f:spec": item(all)})
    );
    let story = story.update(pods, "v", pod(json!({"a": "1", "b": "1"}), "y"));
    assert_eq!(
        story.owned(Operation::Update, "v"),
        json!({"f:metadata": labels(json!({"f:b": {}})), "f:spec": item(json!({"f:image": {}}))})
    );
    let story = story.update(pods, "w", json!({"metadata": {"name": "p"}, "spec": {}}));
    assert_eq!(story.managers, Managers::default());
}

#[test]
fn managed_fields_are_read_and_written_in_upstreams_order() {
    let entry = |name: &str, operation: &str, time: &str| json!({"manager": name, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}});
    let list = json!([
        entry("b", "Update", "2"),
        entry("a", "Update", "2"),
        entry("c", "Update", "1"),
        entry("d", "Apply", "3")
    ]);
    let written = Managers::parse(&list).unwrap().to_value();
    let names: Vec<&str> = written.as_array().unwrap().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["d", "c", "a", "b"]);
    assert!(apply::same_but_times(&json!([entry("a", "Update", "2")]), &json!([entry("a", "Update", "3")])));
    assert!(!apply::same_but_times(&json!([entry("a", "Update", "2")]), &json!([entry("b", "Update", "2")])));
    for (field, value) in [
        ("operation", json!("X")),
        ("apiVersion", json!("")),
        ("fieldsType", json!("V2")),
        ("fieldsV1", json!({"a": {}})),
    ] {
        let mut wrong = entry("a", "Update", "1");
        wrong[field] = value;
        assert!(Managers::parse(&json!([wrong])).is_err(), "{field}");
    }
}

#[test]
fn an_object_keeps_what_nobody_owns() {
    let kind = kind("v1/configmaps");
    let config =
        |labels: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": labels}});
    let story = Story::new().apply(kind, "a", &config(json!({"only": "one"})), false).unwrap();
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let story = story.apply(kind, "a", &bare, false).unwrap();
    assert_eq!((&story.object, story.owned(Operation::Apply, "a")), (&bare, Value::Null));
}

#[test]
fn the_annotation_of_client_side_apply_is_kept_in_step() {
    let with = |text: &str| json!({"metadata": {"annotations": {apply::LAST_APPLIED: text}}});
    let config = json!({"metadata": {"annotations": {apply::LAST_APPLIED: "old"}, "name": "x"}});
    for (before, manager, after) in [
        ("old", "kubectl", "{\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n"),
        ("", "kubectl", ""),
        ("old", "other", "old"),
    ] {
        let mut object = with(before);
        refresh_last_applied(&mut object, &config, manager);
        assert_eq!(object, with(after));
    }
}

/// Keys of `FieldsV1`.
fn element() -> impl Strategy<Value = String> {
    prop_oneof![
        "f:[a-c]",
        "v:\"[a-c]\"",
        (0..3).prop_map(|number| format!("v:{number}")),
        ("[a-b]", 0..3).prop_map(|(name, port)| format!(r#"k:{{"name":"{name}","port":{port}}}"#)),
        (0..3).prop_map(|at| format!("i:{at}")),
    ]
}

fn fields() -> impl Strategy<Value = Value> {
    let leaf = Just(json!({}));
    leaf.prop_recursive(4, 40, 5, |inner| {
        (prop::collection::btree_map(element(), inner, 0..5), any::<bool>()).prop_map(|(map, member)| {
            let mut object: serde_json::Map<String, Value> = map.into_iter().collect();
            if member {
                object.insert(".".into(), json!({}));
            }
            object.into()
        })
    })
    // The whole object is no path.
    .prop_map(|mut fields| {
        fields.as_object_mut().map(|map| map.shift_remove("."));
        fields
    })
}

fn set() -> impl Strategy<Value = Set> {
    fields().prop_map(|fields| Set::parse(&fields).expect("generated fields are well-formed"))
}

fn paths(set: &Set) -> BTreeSet<Vec<Element>> {
    set.paths().into_iter().collect()
}

/// Something small to apply to a Deployment.
fn config() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-c]", "[x-y]", 0..3);
    let container =
        (labels.clone(), prop::collection::btree_set((80..82, prop::bool::ANY), 0..3), prop::option::of("[x-y]"))
            .prop_map(|(env, ports, image)| {
                let env: Vec<Value> =
                    env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                let port = |(port, tcp): (i32, bool)| {
                    if tcp { json!({"containerPort": port}) } else { json!({"containerPort": port, "protocol": "UDP"}) }
                };
                let ports: Vec<Value> = ports.into_iter().map(port).collect();
                let mut container = json!({"env": env, "ports": ports});
                if let Some(image) = image {
                    container["image"] = image.as_str().into();
                    container["args"] = json!([image]);
                }
                container
            });
    let containers = prop::collection::btree_map("[m-o]", container, 0..3);
    let finalizers = prop::collection::btree_set("[f-h]", 0..3);
    (labels, prop::option::of(1..3_i64), containers, finalizers).prop_map(
        |(labels, replicas, containers, finalizers)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, mut container)| {
                    container["name"] = name.into();
                    container
                })
                .collect();
            let mut config = json!({"metadata": {}, "spec": {"template": {"spec": {}}}});
            if !labels.is_empty() {
                config["metadata"]["labels"] = json!(labels);
            }
            if !finalizers.is_empty() {
                config["metadata"]["finalizers"] = json!(finalizers);
            }
            if !containers.is_empty() {
                config["spec"]["template"]["spec"]["containers"] = containers.into();
            }
            if let Some(replicas) = replicas {
                config["spec"]["replicas"] = replicas.into();
            }
            config
        },
    )
}

/// Without regard to the order of items, and without what is empty.
fn loose(value: &Value) -> Value {
    let hollow = |value: &Value| value.is_null() || value == &json!({}) || value == &json!([]);
    match value {
        Value::Object(map) => {
            let entries =
                map.iter().map(|(key, value)| (key.clone(), loose(value))).filter(|(_, value)| !hollow(value));
            entries.collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(loose).collect();
            items.sort_by_key(|item| sorted(item).to_string());
            items.into()
        }
        other => other.clone(),
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, sorted(value))).collect();
            json!(sorted)
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn sets_survive_being_written(set in set()) {
        let written = set.to_value();
        prop_assert_eq!(Set::parse(&written), Ok(set.clone()));
        prop_assert_eq!(Set::parse(&serde_json::from_str(&written.to_string()).unwrap()).unwrap().to_value().to_string(), written.to_string());
        prop_assert!(set.paths().is_sorted());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(\\{\"?|[fkvi]:|\\\\\"|[{}\":,.]|[a-c0-2])*", key in ".{0,12}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) && let Ok(set) = Set::parse(&value) {
            prop_assert_eq!(Set::parse(&set.to_value()), Ok(set));
        }
        if let Ok(element) = Element::parse(&key) {
            prop_assert_eq!(Element::parse(&element.to_key()), Ok(element));
        }
    }

    #[test]
    fn sets_are_sets_of_paths(left in set(), right in set()) {
        let (a, b) = (paths(&left), paths(&right));
        prop_assert_eq!(paths(&left.clone().union(right.clone())), &a | &b);
        prop_assert_eq!(paths(&left.intersection(&right)), &a & &b);
        prop_assert_eq!(paths(&left.clone().difference(&right)), &a - &b);
        prop_assert!(a.iter().all(|path| left.has(path)));
        prop_assert!(b.iter().all(|path| a.contains(path) == left.has(path)));
    }

    #[test]
    fn applying_twice_is_applying_once(first in config(), second in config()) {
        let kind = kind("apps/v1/deployments");
        let story = Story::new().apply(kind, "a", &first, false).unwrap().apply(kind, "b", &second, true).unwrap();
        prop_assert_eq!(story.apply(kind, "b", &second, false).unwrap(), story);
    }

    #[test]
    fn who_is_alone_has_what_he_applied_last(first in config(), second in config()) {
        let kind = kind("apps/v1/deployments");
        let story = Story::new().apply(kind, "a", &first, false).unwrap().apply(kind, "a", &second, false).unwrap();
        prop_assert_eq!(loose(&story.object), loose(&second));
    }

    #[test]
    fn the_laws_hold_whoever_writes(at in 0..laws::KINDS, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        laws::hold(at, &bytes);
    }

    #[test]
    fn nobody_loses_what_he_owns_without_force(configs in prop::collection::vec((0..3usize, config()), 1..6), written in config()) {
        let kind = kind("apps/v1/deployments");
        let mut story = Story::new().update(kind, "updater", written);
        let mut last: [Option<Value>; 3] = [None, None, None];
        for (who, config) in configs {
            let name = ["a", "b", "c"][who];
            let Ok(next) = story.apply(kind, name, &config, false) else { continue };
            let own = Manager::new(Operation::Apply, name, "", "");
            for (manager, entry) in story.managers.0.iter().filter(|(manager, _)| **manager != own) {
                prop_assert_eq!(next.managers.0.get(manager), Some(entry), "{:?} lost by {}", manager, config);
            }
            last[who] = Some(config);
            // What the others applied is still there: applying it again changes nothing.
            for (other, config) in ["a", "b", "c"].into_iter().zip(&last) {
                let Some(config) = config else { continue };
                let again = next.apply(kind, other, config, false);
                prop_assert_eq!(again.map(|again| loose(&again.object)), Ok(loose(&next.object)), "{} by {}", config, other);
            }
            story = next;
        }
    }
}
