//! Server-side apply through the whole server, of whatever three managers say: applying again changes no byte, and the others
//! own what they owned.

use std::sync::atomic::{AtomicUsize, Ordering};

use isopod_schema::Table;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::arbitrary::{self, Source};
use crate::harness::{Answer, Cluster, deployment};

/// Stories that are told.
const STORIES: u32 = 48;
/// Most writes in one.
const STEPS_MAX: usize = 8;

async fn apply(cluster: &Cluster, url: &str, manager: &str, force: bool, config: &Value) -> Answer {
    let line = format!("PATCH {url}?fieldManager={manager}&force={force}");
    cluster.ask(&line, &[("content-type", "application/apply-patch+yaml")], &config.to_string()).await
}

/// A part of an object, as a configuration may have it.
fn part(ty: &str, source: &mut Source<'_>) -> Value {
    let ty = Table::builtin().types().named(ty).expect("a built-in type");
    arbitrary::document(ty, source)
}

fn overlay(base: &mut Value, part: Value, but: &[&str]) {
    let (Value::Object(base), Value::Object(part)) = (base, part) else { return };
    base.extend(part.into_iter().filter(|(name, _)| !but.contains(&name.as_str())));
}

/// An object with what it needs, and more.
fn config(source: &mut Source<'_>) -> (&'static str, Value) {
    let mut metadata = part("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", source);
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "labels" | "annotations"));
    }
    let (url, mut config) = match source.below(3) {
        0 => {
            let mut config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
            overlay(&mut config, part("io.k8s.api.core.v1.ConfigMap", source), &["metadata", "immutable"]);
            ("/api/v1/namespaces/default/configmaps/m", config)
        }
        1 => {
            let mut config = deployment("d", 1);
            let container = &mut config["spec"]["template"]["spec"]["containers"][0];
            overlay(container, part("io.k8s.api.core.v1.Container", source), &["name", "image"]);
            ("/apis/apps/v1/namespaces/default/deployments/d", config)
        }
        _ => {
            let mut config = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "name": "h"}]},
            });
            // With the type goes what only the old type has, also when it is applied.
            overlay(&mut config["spec"], part("io.k8s.api.core.v1.ServiceSpec", source), &["ports", "type"]);
            ("/api/v1/namespaces/default/services/s", config)
        }
    };
    overlay(&mut config["metadata"], metadata, &[]);
    (url, config)
}

/// What everybody but one owns.
fn owned_by_others(object: &Value, but: &str) -> Vec<Value> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.filter(|entry| entry["manager"] != but).cloned().collect()
}

/// Applies what the bytes say; how much of it was accepted.
async fn told(bytes: &[u8]) -> usize {
    let (cluster, mut source, mut accepted) = (Cluster::new().await, Source::new(bytes), 0);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        let (manager, force) = (["a", "b", "c"][source.below(3)], source.below(4) == 3);
        let (url, config) = config(&mut source);
        let before = cluster.ask(&format!("GET {url}"), &[], "").await.json();
        let first = apply(&cluster, url, manager, force, &config).await;
        if first.code >= 300 {
            continue;
        }
        accepted += 1;
        if !force {
            assert_eq!(owned_by_others(&first.json(), manager), owned_by_others(&before, manager), "{config}");
        }
        cluster.pass(60);
        let again = apply(&cluster, url, manager, false, &config).await;
        assert_eq!((again.code, again.text), (200, first.text), "{config}");
    }
    accepted
}

#[test]
fn whatever_is_applied_is_settled() {
    let accepted = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config { cases: STORIES, failure_persistence: None, ..Config::default() });
    let bytes = proptest::collection::vec(any::<u8>(), 0..400);
    let told = runner.run(&bytes, |bytes| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        accepted.fetch_add(runtime.block_on(told(&bytes)), Ordering::Relaxed);
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{error}"));
    assert!(accepted.into_inner() > STORIES as usize, "most stories are about something");
}
