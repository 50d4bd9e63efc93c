//! Any two documents as object and patch: patching neither panics nor makes what cannot be read, and a merge that is repeated
//! changes nothing more.
#![no_main]

use isopod_schema::{Table, decode, patch};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {
            "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "b", "image": "y"}],
            "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fuzz_target!(|input: (u8, &[u8])| {
    let kind = Table::builtin().resource("", "v1", "pods").expect("pods");
    let Ok(decoded) = decode::patch(kind.root(), input.1) else { return };
    let patched = match input.0 % 3 {
        0 => patch::json_patch(&pod(), &decoded.value).ok(),
        1 => {
            let mut once = pod();
            patch::merge_patch(&mut once, &decoded.value);
            let mut twice = once.clone();
            patch::merge_patch(&mut twice, &decoded.value);
            assert_eq!(once, twice);
            Some(once)
        }
        _ => patch::strategic_merge(kind, pod(), &decoded.value).ok(),
    };
    if let Some(document) = patched {
        drop(decode::value(kind.root(), document));
    }
});
