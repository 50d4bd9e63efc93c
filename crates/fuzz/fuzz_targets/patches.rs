//! Any document as a patch of an object of some kinds: patching neither panics nor makes what cannot be read, and a merge that
//! is repeated changes nothing more.
#![no_main]

#[path = "../../schema/tests/suite/arbitrary.rs"]
mod arbitrary;

use arbitrary::Source;
use isopod_schema::{Table, decode, patch};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const KINDS: [(&str, &str, &str); 4] =
    [("", "v1", "pods"), ("", "v1", "services"), ("apps", "v1", "deployments"), ("", "v1", "configmaps")];

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {
            "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "b", "image": "y"}],
            "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fuzz_target!(|input: (u8, u8, &[u8], &[u8])| {
    let (at, how, object, change) = input;
    let (group, version, plural) = KINDS[usize::from(at) % KINDS.len()];
    let kind = Table::builtin().resource(group, version, plural).expect("a built-in kind");
    let mut source = Source::new(object);
    let object = if source.is_empty() { pod() } else { arbitrary::document(kind.root(), &mut source) };
    let Ok(decoded) = decode::patch(kind.root(), change) else { return };
    let patched = match how % 3 {
        0 => patch::json_patch(&object, &decoded.value).ok(),
        1 => {
            let mut once = object;
            patch::merge_patch(&mut once, &decoded.value);
            let mut twice = once.clone();
            patch::merge_patch(&mut twice, &decoded.value);
            assert_eq!(once, twice);
            Some(once)
        }
        _ => patch::strategic_merge(kind, object, &decoded.value).ok(),
    };
    if let Some(document) = patched {
        drop(decode::value(kind.root(), document));
    }
});
