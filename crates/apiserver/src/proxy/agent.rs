//! What a node's agent answers under the node's proxy when it serves no HTTP of its own, as Isopod's do not: the paths of a
//! kubelet that monitoring and people ask for. Read only.

use std::fmt::Write;

use http::{HeaderValue, Method};
use isopod_schema::{Status, Table};
use isopod_store::ListQuery;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::codec;
use crate::context::Context;
use crate::kubelets::{NodeUsage, Usage};
use crate::query::Query;
use crate::respond::{self, Response};
use crate::selection::Selection;
use crate::strategy::meta;

/// Prometheus' text form.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const NANOS_PER_SECOND: f64 = 1e9;

/// Answers for the agent of a node.
///
/// # Errors
/// 405 for what would change something, 503 when the agent does not answer.
pub(super) async fn answer(context: &Context<'_>, node: &str, method: &Method, path: &str) -> Result<Response, Status> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(respond::text(405, "only GET and HEAD are answered for this node's agent\n"));
    }
    let usage = || async { context.server.kubelets()?.usage(node).await };
    match path.trim_end_matches('/') {
        "/healthz" => usage().await.map(|_| respond::text(200, "ok")),
        "/pods" | "/runningpods" => pods(context, node).map(|pods| json(&pods)),
        "/stats/summary" => {
            let usage = usage().await?;
            Ok(json(&summary(node, &usage, &uids(&pods(context, node)?))))
        }
        "/metrics/resource" => Ok(respond::with(200, METRICS, metrics(&usage().await?))),
        _ => Ok(respond::text(404, "404 page not found\n")),
    }
}

fn json(document: &Value) -> Response {
    respond::json_body(document.to_string().into())
}

/// The pods that are bound to a node.
fn pods(context: &Context<'_>, node: &str) -> Result<Value, Status> {
    let kind = Table::builtin().resource("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    let query = ListQuery { prefix: codec::prefix(kind, ""), start: String::new(), limit: 0, at: None };
    let list = context.server.store.list(&query).map_err(Status::internal)?;
    let selection = Selection::parse(kind, &Query::parse(&format!("fieldSelector=spec.nodeName%3D{node}")))?;
    let chosen = list.entries.iter().filter(|entry| selection.matches(kind, entry));
    let items: Vec<Value> = chosen.map(|entry| codec::decode(&entry.value)).collect::<Result<_, _>>()?;
    Ok(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Namespace, name and UID of each.
fn uids(pods: &Value) -> Vec<[String; 3]> {
    let items = pods["items"].as_array().into_iter().flatten();
    items.map(|pod| ["namespace", "name", "uid"].map(|field| meta(pod, field).to_owned())).collect()
}

fn sum(containers: impl Iterator<Item = Usage>) -> Usage {
    containers.fold(Usage::default(), |sum, one| Usage {
        at_unix_nanos: sum.at_unix_nanos.max(one.at_unix_nanos),
        cpu_nanos: sum.cpu_nanos + one.cpu_nanos,
        memory_bytes: sum.memory_bytes + one.memory_bytes,
    })
}

/// The kubelet's `stats/v1alpha1` Summary: processor and memory, which is what is measured.
fn summary(node: &str, usage: &NodeUsage, uids: &[[String; 3]]) -> Value {
    let stats = |used: &Usage| {
        let time = Timestamp::from_nanosecond(used.at_unix_nanos.into()).unwrap_or_default().to_string();
        json!({
            "cpu": {"time": time, "usageCoreNanoSeconds": used.cpu_nanos},
            "memory": {"time": time, "workingSetBytes": used.memory_bytes},
        })
    };
    let named = |key: &str, name: Value, used: &Usage| {
        let mut stats = stats(used);
        stats[key] = name;
        stats
    };
    let pods = usage.pods.iter().map(|pod| {
        let uid = uids.iter().find(|[namespace, name, _]| *namespace == pod.namespace && *name == pod.pod);
        let reference = json!({"namespace": pod.namespace, "name": pod.pod, "uid": uid.map(|[.., uid]| uid)});
        let mut stats = named("podRef", reference, &sum(pod.containers.values().copied()));
        stats["containers"] = pod.containers.iter().map(|(name, used)| named("name", json!(name), used)).collect();
        stats
    });
    json!({"node": named("nodeName", json!(node), &usage.whole), "pods": pods.collect::<Vec<_>>()})
}

/// The kubelet's `/metrics/resource`.
fn metrics(usage: &NodeUsage) -> String {
    let mut series: Vec<(&str, String, Usage)> = vec![("node", String::new(), usage.whole)];
    for pod in &usage.pods {
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.pod);
        series.push(("pod", format!("{{{labels}}}"), sum(pod.containers.values().copied())));
        let containers = pod.containers.iter();
        series
            .extend(containers.map(|(name, used)| ("container", format!("{{container=\"{name}\",{labels}}}"), *used)));
    }
    let mut text = String::new();
    for of in ["container", "node", "pod"] {
        let found: Vec<_> = series.iter().filter(|(whose, ..)| *whose == of).collect();
        let mut family = |name: &str, kind: &str, value: fn(&Usage) -> f64| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {of}_{name} {kind}");
            for (_, labels, used) in &found {
                let _ = writeln!(text, "{of}_{name}{labels} {} {}", value(used), used.at_unix_nanos / 1_000_000);
            }
        };
        family("cpu_usage_seconds_total", "counter", |used| used.cpu_nanos as f64 / NANOS_PER_SECOND);
        family("memory_working_set_bytes", "gauge", |used| used.memory_bytes as f64);
    }
    text + "# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelets::PodUsage;

    fn usage() -> NodeUsage {
        let used = |cpu_nanos, memory_bytes| Usage { at_unix_nanos: 1_500_000_000, cpu_nanos, memory_bytes };
        let containers = [("a", used(1_000_000_000, 10)), ("b", used(500_000_000, 20))];
        let containers = containers.map(|(name, used)| (name.to_owned(), used)).into();
        let pods = vec![PodUsage { namespace: "n".into(), pod: "p".into(), containers }];
        NodeUsage { whole: used(3_000_000_000, 100), pods }
    }

    #[test]
    fn metrics_are_those_of_a_kubelet() {
        let text = metrics(&usage());
        let expected = [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1 1500",
            "container_cpu_usage_seconds_total{container=\"b\",namespace=\"n\",pod=\"p\"} 0.5 1500",
            "container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"p\"} 10 1500",
            "node_cpu_usage_seconds_total 3 1500",
            "node_memory_working_set_bytes 100 1500",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1.5 1500",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 30 1500",
            "resource_scrape_error 0",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_summary_names_pods_and_containers() {
        let uids = [["n", "p", "u"].map(str::to_owned)];
        let summary = summary("x", &usage(), &uids);
        assert_eq!(
            (&summary["node"]["nodeName"], &summary["node"]["cpu"]["usageCoreNanoSeconds"]),
            (&json!("x"), &json!(3_000_000_000_u64))
        );
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({"namespace": "n", "name": "p", "uid": "u"}));
        assert_eq!((&pod["memory"]["workingSetBytes"], &pod["containers"][1]["name"]), (&json!(30), &json!("b")));
        assert_eq!(pod["cpu"]["time"], "1970-01-01T00:00:01.5Z");
    }
}
