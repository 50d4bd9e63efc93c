//! Patches: vectors per rule, and properties.

use isopod_schema::patch::{self, PatchError};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::kind;

fn strategic(path: &str, document: Value, change: Value) -> Result<Value, PatchError> {
    patch::strategic_merge(kind(path), document, &change)
}

#[test]
fn strategic_merge_follows_the_schema() {
    fn check(what: &str, document: Value, change: Value, expected: Value) {
        assert_eq!(strategic("pods", document, change).expect(what), expected, "{what}");
    }
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    check(
        "items merge by name and take the order of the patch, new ones first",
        pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}])),
        pod(json!([{"name": "c"}, {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}])),
        pod(
            json!([{"name": "c"}, {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}]),
        ),
    );
    check(
        "null deletes",
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null}}}),
        json!({"metadata": {"labels": {"b": "2"}}}),
    );
    check(
        "atomic lists are replaced",
        pod(json!([{"name": "a", "args": ["1", "2"]}])),
        pod(json!([{"name": "a", "args": ["3"]}])),
        pod(json!([{"name": "a", "args": ["3"]}])),
    );
    check(
        "delete by key",
        pod(json!([{"name": "a"}, {"name": "b"}])),
        pod(json!([{"name": "a", "$patch": "delete"}])),
        pod(json!([{"name": "b"}])),
    );
    check(
        "replace a list",
        pod(json!([{"name": "a"}])),
        pod(json!([{"$patch": "replace"}, {"name": "b"}])),
        pod(json!([{"name": "b"}])),
    );
    check(
        "replace a map",
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"b": "2", "$patch": "replace"}}}),
        json!({"metadata": {"labels": {"b": "2"}}}),
    );
    check(
        "delete a map",
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}}),
    );
    check(
        "sets are united",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
    );
    check(
        "new items of sets come first",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c", "a"]}}),
        json!({"metadata": {"finalizers": ["c", "a", "b"]}}),
    );
    check(
        "items of sets are deleted",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["b"]}}),
    );
    check(
        "keys are retained",
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
    );
    check(
        "keys compare as JSON values",
        pod(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x"}]}])),
        pod(json!([{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}]}])),
        pod(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x", "protocol": "UDP"}]}])),
    );
    check(
        "tolerations have no key",
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
    check(
        "new maps lose nulls and directives",
        json!({}),
        json!({"metadata": {"labels": {"a": null, "b": "1"}}}),
        json!({"metadata": {"labels": {"b": "1"}}}),
    );
}

#[test]
fn set_element_order_sorts_what_it_names() {
    fn check(what: &str, before: &[&str], change: Value, expected: &[&str]) {
        let list = |names: &[&str]| Value::from(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>());
        let document = json!({"spec": {"containers": list(before)}});
        let result = strategic("pods", document, json!({"spec": change})).expect(what);
        assert_eq!(result["spec"]["containers"], list(expected), "{what}");
    }
    let names = |names: &[&str]| Value::from(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>());
    check(
        "reorders",
        &["a", "b", "c"],
        json!({"$setElementOrder/containers": names(&["c", "b", "a"])}),
        &["c", "b", "a"],
    );
    check(
        "keeps unnamed ones in place",
        &["a", "x", "b"],
        json!({"$setElementOrder/containers": names(&["a", "b"])}),
        &["a", "x", "b"],
    );
    check(
        "with additions",
        &["a", "b"],
        json!({"$setElementOrder/containers": names(&["n", "a", "b"]), "containers": names(&["n"])}),
        &["n", "a", "b"],
    );
    check(
        "new ones come before those that only the server has",
        &["a", "x"],
        json!({"$setElementOrder/containers": names(&["a", "n"]), "containers": names(&["n"])}),
        &["a", "n", "x"],
    );
    check(
        "new ones come where the directive says",
        &["x", "a", "y", "b"],
        json!({"$setElementOrder/containers": names(&["a", "n", "b"]), "containers": names(&["n"])}),
        &["x", "a", "n", "y", "b"],
    );
    check(
        "with deletions",
        &["a", "b"],
        json!({"$setElementOrder/containers": names(&["b"]), "containers": [{"name": "a", "$patch": "delete"}]}),
        &["b"],
    );
}

#[test]
fn wrong_directives_are_refused() {
    fn check(change: Value, expected: &str) {
        let document = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}});
        let error = strategic("pods", document, change).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    check(json!({"spec": {"containers": [{"image": "x"}]}}), "does not contain declared merge key: name");
    check(json!({"spec": {"$patch": "burn"}}), "unknown patch type: burn");
    check(
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}),
        "emptyDir is not in the list of retainKeys",
    );
    check(
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b"}, {"name": "a"}]}}),
        "doesn't match $setElementOrder list",
    );
    check(json!([]), "is an object");
}

#[test]
fn json_patch_operations() {
    fn check(operations: Value, expected: Result<Value, &str>) {
        let document = json!({"a": {"b": [1, 2]}});
        match (patch::json_patch(&document, &operations), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
    check(json!([{"op": "add", "path": "/a/b/-", "value": 3}]), Ok(json!({"a": {"b": [1, 2, 3]}})));
    check(
        json!([{"op": "remove", "path": "/a/b/0"}, {"op": "replace", "path": "/a/b/0", "value": 9}]),
        Ok(json!({"a": {"b": [9]}})),
    );
    // The library that upstream patches with puts what it is to replace, though not into lists.
    check(json!([{"op": "replace", "path": "/a/c", "value": 1}]), Ok(json!({"a": {"b": [1, 2], "c": 1}})));
    let refused = "the server rejected our request due to an error in our request";
    check(json!([{"op": "replace", "path": "/a/b/2", "value": 1}]), Err(refused));
    check(json!([{"op": "replace", "path": "/x/y", "value": 1}]), Err(refused));
    check(json!([{"op": "test", "path": "/a/b/0", "value": 2}]), Err(refused));
    check(json!([{"op": "remove", "path": "/x"}]), Err(refused));
    check(json!({"op": "add"}), Err("error decoding patch"));
    check(json!([{"op": "fly", "path": "/"}]), Err(refused));
    let many: Vec<Value> =
        (0..=patch::MAX_JSON_PATCH_OPERATIONS).map(|_| json!({"op": "remove", "path": "/a"})).collect();
    check(many.into(), Err("maximum operations"));
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0..5).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The merge patch that turns one document into another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (from, to) else { return to.clone() };
    let mut change = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(Value::Object(_)) if value.is_object() => {
                drop(change.insert(key.clone(), difference(&old[key], value)))
            }
            Some(_) if value.is_object() => drop(change.insert(key.clone(), value.clone())),
            _ => drop(change.insert(key.clone(), value.clone())),
        }
    }
    change.into()
}

proptest! {
    #[test]
    fn a_merge_patch_of_the_difference_reproduces(from in document(), to in document()) {
        let mut result = from.clone();
        patch::merge_patch(&mut result, &difference(&from, &to));
        prop_assert_eq!(result, to);
    }

    #[test]
    fn strategic_merge_of_an_object_with_itself_changes_nothing(labels in prop::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..5), names in prop::collection::btree_set("[a-d]", 0..4)) {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "args": [name]})).collect();
        let pod = json!({"metadata": {"labels": labels, "finalizers": names}, "spec": {"containers": containers}});
        let result = strategic("pods", pod.clone(), pod.clone());
        prop_assert_eq!(result, Ok(pod));
    }
}
