//! APIServices of the group versions that this server answers for itself: listed like all others, always available. They
//! follow the kinds that are served.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use isopod_schema::{Status, Table};
use isopod_store::{Expect, ListQuery, Write};
use serde_json::{Value, json};

use super::routes::PREFIX;
use crate::context::{Context, commit};
use crate::customs::{Served, Tables};
use crate::server::ApiServer;
use crate::strategy::meta;
use crate::{codec, strategy};

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Groups with the places that upstream gives them; the rest, custom kinds among them, comes last.
const PRIORITIES: [(&str, i64, i64); 20] = [
    ("", 18_000, 1),
    ("apps", 17_800, 15),
    ("events.k8s.io", 17_750, 15),
    ("authentication.k8s.io", 17_700, 15),
    ("authorization.k8s.io", 17_600, 15),
    ("autoscaling", 17_500, 15),
    ("batch", 17_400, 15),
    ("certificates.k8s.io", 17_300, 15),
    ("networking.k8s.io", 17_200, 15),
    ("policy", 17_100, 15),
    ("rbac.authorization.k8s.io", 17_000, 15),
    ("storage.k8s.io", 16_800, 15),
    ("apiextensions.k8s.io", 16_700, 15),
    ("admissionregistration.k8s.io", 16_700, 15),
    ("scheduling.k8s.io", 16_600, 15),
    ("coordination.k8s.io", 16_500, 15),
    ("node.k8s.io", 16_300, 15),
    ("discovery.k8s.io", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", 16_100, 21),
    ("resource.k8s.io", 15_900, 15),
];
const LAST: (i64, i64) = (1_000, 100);

/// Brings the objects into step with what is served, and keeps them there until the server is gone.
///
/// # Errors
/// When the store cannot be read or written.
pub(super) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    let tables = server.tables();
    let served = tables.borrow().clone();
    settle(server, &served).await?;
    tokio::spawn(run(Arc::downgrade(server), tables));
    Ok(())
}

async fn run(server: Weak<ApiServer>, mut tables: Tables) {
    while tables.changed().await.is_ok() {
        let Some(server) = server.upgrade() else { return };
        let served = tables.borrow_and_update().clone();
        if let Err(error) = settle(&server, &served).await {
            tracing::error!(%error, "the list of API services could not be brought up to date");
        }
    }
}

/// The APIServices that there should be, by name.
fn wanted(served: &Served, now: &str) -> BTreeMap<String, Value> {
    let mut wanted = BTreeMap::new();
    for group in served.table.groups() {
        // Upstream does not list the group of the list itself.
        if group.name == "apiregistration.k8s.io" {
            continue;
        }
        let is_builtin = Table::builtin().groups().iter().any(|own| own.name == group.name);
        let known = PRIORITIES.iter().find(|row| row.0 == group.name);
        let (minimum, first) = known.map_or(LAST, |row| (row.1, row.2));
        let count = group.versions.len() as i64;
        for (at, version) in group.versions.iter().enumerate() {
            let name = format!("{version}.{}", group.name);
            let condition = json!({
                "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
                "message": "Local APIServices are always available",
            });
            let object = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {AUTOMANAGED: if is_builtin { "onstart" } else { "true" }}},
                "spec": {
                    "group": group.name, "version": version, "groupPriorityMinimum": minimum,
                    "versionPriority": first + 15 * (count - 1 - at as i64),
                },
                "status": {"conditions": [condition]},
            });
            wanted.insert(name, object);
        }
    }
    wanted
}

async fn settle(server: &Arc<ApiServer>, served: &Served) -> Result<(), Status> {
    let now = strategy::time_text(server.config.clock.now());
    let mut wanted = wanted(served, &now);
    let list = server.store.list(&ListQuery { prefix: PREFIX.into(), ..ListQuery::default() });
    let mut writes = Vec::new();
    for entry in list.map_err(Status::internal)?.entries {
        let Some(object) = codec::object(&entry) else { continue };
        let is_own = object["metadata"]["labels"].get(AUTOMANAGED).is_some() && object["spec"]["service"].is_null();
        // A name that is taken stays with who has it.
        if wanted.remove(meta(&object, "name")).is_none() && is_own {
            writes.push(Write::delete(entry.key.clone(), Expect::Revision(entry.mod_revision), None));
        }
    }
    for (name, object) in wanted {
        writes.push(Write::put(format!("{PREFIX}{name}"), Expect::Absent, codec::encode(&prepared(server, object)?)));
    }
    // Together, so that one commit makes many of them durable.
    let written = writes.into_iter().map(|write| commit(server, write));
    futures::future::try_join_all(written).await.map(|_| ())
}

fn prepared(server: &Arc<ApiServer>, mut object: Value) -> Result<Value, Status> {
    let context = Context::internal(server, &object)?;
    let status = object["status"].take();
    strategy::prepare_create(context.stored, &mut object, context.now, &uuid::Uuid::new_v4().to_string());
    object["status"] = status;
    Ok(object)
}
