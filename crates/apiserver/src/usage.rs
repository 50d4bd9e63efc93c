//! `metrics.k8s.io`: what pods and nodes use now. Measured by the nodes' agents when somebody asks; nothing is stored.

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use isopod_schema::{Kind, Status, Table};
use isopod_store::{Entry, ListQuery};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::codec;
use crate::context::Context;
use crate::kubelets::{NodeUsage, PodUsage, Usage};
use crate::respond::{self, Response};
use crate::selection::Selection;
use crate::strategy::{meta, text};
use history::{History, Rate, Sample};

/// Group of the kinds that are measured.
const GROUP: &str = "metrics.k8s.io";
/// Nodes that are asked at the same time.
const NODES_AT_ONCE: usize = 32;
/// How long a node may take to answer; one that takes longer is left out.
const NODE_PATIENCE: Duration = Duration::from_secs(5);
/// What was never measured before is measured twice, this far apart.
const BETWEEN: Duration = Duration::from_millis(500);

/// What was measured lately, shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Measurements(Mutex<History>);

/// Whether objects of a kind are measured instead of stored.
pub(crate) fn is_measured(kind: &Kind) -> bool {
    kind.group == GROUP
}

/// One pod or node.
pub(crate) async fn get(context: &Context<'_>) -> Result<Response, Status> {
    let name = &context.info.name;
    let found = subjects(context)?.into_iter().filter(|subject| subject.name == *name).collect();
    let measured = measure(context, found).await?;
    let item = measured.into_iter().next().ok_or_else(|| Status::not_found(context.kind, name))?;
    Ok(respond::document(200, &context.shape.object(context.kind, item, true), &context.shape.output))
}

/// Those that the selectors of the request are about.
pub(crate) async fn list(context: &Context<'_>) -> Result<Response, Status> {
    let items = measure(context, subjects(context)?).await?;
    let list = context.shape.list(context.kind, &items, json!({}));
    Ok(respond::document(200, &list, &context.shape.output))
}

/// A pod or node that is to be measured.
struct Subject {
    node: String,
    name: String,
    /// Empty for nodes.
    uid: String,
    metadata: Value,
}

/// The pods or nodes that a request is about.
fn subjects(context: &Context<'_>) -> Result<Vec<Subject>, Status> {
    let kind = Table::builtin().resource("", "v1", &context.kind.plural).ok_or_else(Status::no_such_resource)?;
    let selection = Selection::parse(kind, &context.query)?;
    let query =
        ListQuery { prefix: codec::prefix(kind, context.namespace()), start: String::new(), limit: 0, at: None };
    let list = context.server.store.list(&query).map_err(Status::internal)?;
    let chosen = list.entries.iter().filter(|entry| selection.matches(kind, entry));
    Ok(chosen.filter_map(|entry| subject(kind, entry)).collect())
}

fn subject(kind: &Kind, entry: &Entry) -> Option<Subject> {
    let object = codec::object(entry)?;
    let name = meta(&object, "name").to_owned();
    let mut metadata = json!({"name": name, "creationTimestamp": object["metadata"]["creationTimestamp"]});
    for field in ["namespace", "labels"] {
        if !object["metadata"][field].is_null() {
            metadata[field] = object["metadata"][field].clone();
        }
    }
    if kind.is("", "nodes") {
        return Some(Subject { node: name.clone(), name, uid: String::new(), metadata });
    }
    let node = text(&object, &["spec", "nodeName"]);
    let runs = text(&object, &["status", "phase"]) == "Running" && !node.is_empty();
    runs.then(|| Subject { node: node.to_owned(), name, uid: meta(&object, "uid").to_owned(), metadata })
}

/// Objects for all that could be measured; what does not answer is left out.
async fn measure(context: &Context<'_>, subjects: Vec<Subject>) -> Result<Vec<Value>, Status> {
    let mut names: BTreeSet<&str> = subjects.iter().map(|subject| subject.node.as_str()).collect();
    let mut measured: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for is_last in [false, true] {
        let answers = ask(context, &names).await?;
        for (node, usage) in &answers {
            let of_node = subjects.iter().filter(|subject| subject.node == *node);
            // All are looked at before any is given up: each look is a sample.
            let items: Vec<Option<Value>> = of_node.map(|subject| item(context, subject, usage)).collect();
            if let Some(items) = items.into_iter().collect::<Option<Vec<Value>>>() {
                names.remove(node.as_str());
                measured.insert(node.clone(), items.into_iter().filter(|item| !item.is_null()).collect());
            }
        }
        names.retain(|name| answers.contains_key(*name));
        if names.is_empty() || is_last {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    let mut items: Vec<Value> = measured.into_values().flatten().collect();
    let place = |item: &Value| (meta(item, "namespace").to_owned(), meta(item, "name").to_owned());
    items.sort_by_key(place);
    Ok(items)
}

/// What each of these nodes says.
async fn ask(context: &Context<'_>, nodes: &BTreeSet<&str>) -> Result<BTreeMap<String, NodeUsage>, Status> {
    if nodes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let kubelets = context.server.kubelets()?;
    let one = |node: String| async move {
        match tokio::time::timeout(NODE_PATIENCE, kubelets.usage(&node)).await {
            Ok(Ok(usage)) => Some((node, usage)),
            Ok(Err(status)) => {
                tracing::debug!(node, message = status.message, "a node could not be measured");
                None
            }
            Err(_) => None,
        }
    };
    let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    let answers = futures::stream::iter(nodes.into_iter().map(one)).buffer_unordered(NODES_AT_ONCE);
    Ok(answers.filter_map(|answer| async { answer }).collect().await)
}

/// The object about a pod or node; null when its node says nothing of it, none when it must be measured again first.
fn item(context: &Context<'_>, subject: &Subject, usage: &NodeUsage) -> Option<Value> {
    let mut object = json!({
        "kind": context.kind.kind, "apiVersion": context.kind.api_version(), "metadata": subject.metadata,
    });
    if subject.uid.is_empty() {
        let rate = rate(context, &format!("node/{}", subject.name), &usage.whole)?;
        stamp(&mut object, usage.whole.at_unix_nanos, rate.window_nanos);
        object["usage"] = amounts(&usage.whole, rate);
        return Some(object);
    }
    let is_meant = |pod: &&PodUsage| pod.pod == subject.name && pod.namespace == meta(&object, "namespace");
    let Some(pod) = usage.pods.iter().find(is_meant) else { return Some(Value::Null) };
    let rates: Vec<Option<Rate>> =
        pod.containers.iter().map(|(name, used)| rate(context, &format!("pod/{}/{name}", subject.uid), used)).collect();
    let mut containers = Vec::new();
    for ((name, used), rate) in pod.containers.iter().zip(rates) {
        let rate = rate?;
        stamp(&mut object, used.at_unix_nanos, rate.window_nanos);
        containers.push(json!({"name": name, "usage": amounts(used, rate)}));
    }
    if containers.is_empty() {
        return Some(Value::Null);
    }
    object["containers"] = containers.into();
    Some(object)
}

fn rate(context: &Context<'_>, series: &str, usage: &Usage) -> Option<Rate> {
    let sample = Sample { at_unix_nanos: usage.at_unix_nanos, cpu_nanos: usage.cpu_nanos };
    let mut history = context.server.measurements.0.lock().unwrap_or_else(PoisonError::into_inner);
    history.add(series, sample)
}

fn stamp(object: &mut Value, at_unix_nanos: i64, window_nanos: i64) {
    let at = Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_nanos(at_unix_nanos)).unwrap_or_default();
    object["timestamp"] = Timestamp::from_second(at.as_second()).unwrap_or(at).to_string().into();
    object["window"] = format!("{}.{:03}s", window_nanos / 1_000_000_000, window_nanos / 1_000_000 % 1000).into();
}

fn amounts(usage: &Usage, rate: Rate) -> Value {
    let memory = format!("{}Ki", usage.memory_bytes / 1024);
    json!({"cpu": format!("{}n", rate.cpu_nanos_per_second), "memory": memory})
}
