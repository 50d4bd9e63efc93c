//! What the hot path costs: one line per step, microseconds per call. Run with `cargo bench -p isopod-schema`.

use std::hint::black_box;

use isopod_schema::apply::{self, Managers, Writer};
use isopod_schema::openapi::Documents;
use isopod_schema::{Kind, Table, decode, defaults, patch, tables, validate};
use serde_json::{Value, json};

/// Calls per measurement.
const CALLS: u32 = 20_000;

#[expect(clippy::disallowed_types, reason = "a bench reads the clock")]
fn measure(what: &str, calls: u32, mut call: impl FnMut()) {
    let start = std::time::Instant::now();
    (0..calls).for_each(|_| call());
    println!("{what:<28} {:>10.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
}

fn ownership(kind: &Kind, pod: &Value, changed: &Value) {
    let writer = Writer { name: "bench", api_version: "v1", subresource: "", time: "2026-01-01T00:00:00Z" };
    let create = || apply::update(kind, &json!({}), pod, Managers::default(), writer);
    let fields = create().to_value();
    measure("owners compared", CALLS, || drop(black_box(create())));
    measure("owners of a creation", CALLS, || drop(black_box(create().to_value())));
    let stored = || Managers::parse(&fields).expect("written here");
    measure("owners parsed", CALLS, || drop(black_box(stored())));
    let status = Writer { name: "other", subresource: "status", ..writer };
    measure("owners of a status update", CALLS, || {
        drop(black_box(apply::update(kind, pod, changed, stored(), status).to_value()));
    });
    let applied = apply::apply(kind, &json!({}), pod, Managers::default(), writer, false).expect("no conflict");
    measure("apply again", CALLS, || {
        drop(black_box(apply::apply(kind, pod, pod, applied.managers.clone(), writer, false)));
    });
}

fn main() {
    measure("load the table", 1, || {
        black_box(Table::builtin());
    });
    let kind = Table::builtin().resource("", "v1", "pods").expect("pods");
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-5d4f8c7b9d-x2v4q", "namespace": "default", "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9d"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true}]},
        "spec": {"containers": [{"name": "web", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
            "livenessProbe": {"httpGet": {"port": 80}}, "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]}
    });
    let bytes = body.to_string().into_bytes();
    println!("pod of {} bytes", bytes.len());
    measure("serde_json alone", CALLS, || drop(black_box(serde_json::from_slice::<serde_json::Value>(&bytes))));
    measure("JSON without double keys", CALLS, || drop(black_box(decode::unique_json(&bytes))));
    measure("JSON read as YAML", CALLS, || drop(black_box(decode::untyped(decode::Format::Yaml, &bytes))));
    measure("decode", CALLS, || drop(black_box(decode::json(kind.root(), &bytes))));
    measure("decode and default", CALLS, || {
        if let Ok(mut decoded) = decode::json(kind.root(), &bytes) {
            defaults::apply(kind, &mut decoded.value);
            black_box(decoded);
        }
    });
    let mut pod = decode::json(kind.root(), &bytes).expect("decodes").value;
    defaults::apply(kind, &mut pod);
    measure("default again", CALLS, || defaults::apply(kind, black_box(&mut pod)));
    measure("validate", CALLS, || drop(black_box(validate::create(kind, &pod))));
    let change = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}});
    measure("clone", CALLS, || drop(black_box(pod.clone())));
    measure("clone and strategic patch", CALLS, || drop(black_box(patch::strategic_merge(kind, pod.clone(), &change))));
    ownership(kind, &pod, &patch::strategic_merge(kind, pod.clone(), &change).expect("patches"));
    let options =
        tables::Options { now: jiff::Timestamp::UNIX_EPOCH, include: tables::IncludeObject::Metadata, headers: true };
    measure("table of one", CALLS, || drop(black_box(tables::render(kind, [&pod], &options))));
    measure("to bytes", CALLS, || drop(black_box(serde_json::to_vec(&pod))));
    let documents = Documents::new(std::sync::Arc::new(Table::builtin().clone()), None);
    measure("all OpenAPI v3 documents", 1, || drop(black_box(documents.v3_index())));
    let total: usize = documents.keys().filter_map(|key| documents.v3(key)).map(|document| document.bytes.len()).sum();
    println!("OpenAPI v3 is {total} bytes");
    measure("OpenAPI v2", 1, || drop(black_box(documents.v2_json())));
    measure("OpenAPI v2 protobuf", 1, || drop(black_box(documents.v2_protobuf())));
    println!(
        "OpenAPI v2 is {} bytes, {} as protobuf",
        documents.v2_json().bytes.len(),
        documents.v2_protobuf().bytes.len()
    );
}
