//! Whether extensions can be asked: tried when something about them changes, and every half minute while there are any,
//! because a server that hangs tells nobody.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use isopod_planner::admission::Facts;
use isopod_schema::{Status, discovery};
use isopod_store::{Expect, Outcome, Write};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::routes::{self, Extension, PREFIX};
use crate::admission::{Stored, places};
use crate::context::commit;
use crate::server::ApiServer;
use crate::{codec, strategy};

const PERIOD: Duration = Duration::from_secs(30);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// Status, reason and message of a condition.
type Condition = (&'static str, &'static str, String);

/// Starts the task. It ends with the server.
pub(super) fn start(server: &Arc<ApiServer>) {
    let mut changed = server.extensions_check.subscribe();
    // What was found at the beginning is looked at, too.
    if !server.extensions.borrow().is_empty() {
        changed.mark_changed();
    }
    tokio::spawn(run(Arc::downgrade(server), changed));
}

async fn run(server: Weak<ApiServer>, mut changed: watch::Receiver<()>) {
    let mut is_idle = true;
    loop {
        let told = match is_idle {
            true => changed.changed().await,
            false => tokio::time::timeout(PERIOD, changed.changed()).await.unwrap_or(Ok(())),
        };
        if told.is_err() {
            return;
        }
        let Some(server) = server.upgrade() else { return };
        let all: Vec<Arc<Extension>> = server.extensions.borrow().all().cloned().collect();
        is_idle = all.is_empty();
        join_all(all.iter().map(|extension| check(&server, extension))).await;
    }
}

async fn check(server: &Arc<ApiServer>, extension: &Extension) {
    let mut found = extension.clone();
    let condition = match try_out(server, &mut found).await {
        Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
        Err(condition) => condition,
    };
    found.is_available = condition.0 == "True";
    if !found.is_available && found.discovery.is_object() {
        found.discovery["freshness"] = "Stale".into();
    }
    routes::learned(server, found);
    if let Err(error) = write(server, &extension.name, condition).await {
        tracing::error!(name = extension.name, %error, "the state of an extension could not be written");
    }
}

async fn try_out(server: &Arc<ApiServer>, extension: &mut Extension) -> Result<(), Condition> {
    located(server, extension)?;
    let path = format!("/apis/{}/{}", extension.group, extension.version);
    let url = format!("https://{}:{}{path}", extension.server_name(), extension.port);
    let failed =
        |why: String| ("False", "FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"));
    let (code, _, bytes) = super::fetch(server, extension, &path, "application/json", "").await.map_err(&failed)?;
    if !(200..300).contains(&code) {
        return Err(failed(format!("bad status from {url}: {code}")));
    }
    let list: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let better = aggregated(server, extension).await;
    let plain = || discovery::of_resource_list(&list, &extension.group, &extension.version);
    extension.discovery = better.unwrap_or_else(plain);
    let openapi = super::fetch(server, extension, "/openapi/v3", "application/json", "").await;
    let index: Value = openapi.ok().and_then(|(_, _, bytes)| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let own = &index["paths"][path.trim_start_matches('/')];
    extension.openapi_v3 = own.is_object().then(|| strategy::text(own, &["serverRelativeURL"]).to_owned());
    super::openapi::learn(server, extension).await;
    Ok(())
}

/// The version as the extension itself shows it in aggregated discovery, if it knows that.
async fn aggregated(server: &Arc<ApiServer>, extension: &Extension) -> Option<Value> {
    let (_, headers, bytes) = super::fetch(server, extension, "/apis", AGGREGATED, "").await.ok()?;
    let media = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let document: Value = serde_json::from_slice(&bytes).ok().filter(|_| media.contains("APIGroupDiscoveryList"))?;
    let group =
        document["items"].as_array()?.iter().find(|item| item["metadata"]["name"] == extension.group.as_str())?;
    let version = group["versions"].as_array()?.iter().find(|item| item["version"] == extension.version.as_str())?;
    Some(version.clone())
}

/// Whether there is anything to ask.
fn located(server: &ApiServer, extension: &Extension) -> Result<(), Condition> {
    let (namespace, name, port) = (&extension.namespace, &extension.service, extension.port);
    let facts = Stored(&server.store);
    let Some(service) = facts.get("services", namespace, name) else {
        return Err(("False", "ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if service["spec"]["type"] == "ExternalName" {
        return Ok(());
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.into_iter().find(|found| found["port"] == port) else {
        let text = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(("False", "ServicePortError", text));
    };
    let port_name = strategy::text(found, &["name"]);
    if places::ready_endpoint(&facts, namespace, name, port_name).is_none() {
        let text =
            format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
        return Err(("False", "MissingEndpoints", text));
    }
    Ok(())
}

/// Writes the condition where it says something new.
async fn write(server: &ApiServer, name: &str, (status, reason, message): Condition) -> Result<(), Status> {
    loop {
        let Some(entry) = server.store.get(&format!("{PREFIX}{name}")) else { return Ok(()) };
        let mut object = codec::decode(&entry.value)?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let known = conditions.iter().find(|condition| condition["type"] == "Available").cloned().unwrap_or_default();
        if known["status"] == status && known["reason"] == reason && known["message"] == message.as_str() {
            return Ok(());
        }
        let now = strategy::time_text(server.config.clock.now());
        let since = if known["status"] == status { known["lastTransitionTime"].clone() } else { now.into() };
        let available = json!({
            "type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
        });
        let others = conditions.into_iter().filter(|condition| condition["type"] != "Available");
        object["status"] = json!({"conditions": others.chain([available]).collect::<Vec<_>>()});
        let write = Write::put(entry.key.clone(), Expect::Revision(entry.mod_revision), codec::encode(&object));
        if let Outcome::Committed(_) = commit(server, write).await? {
            return Ok(());
        }
    }
}
