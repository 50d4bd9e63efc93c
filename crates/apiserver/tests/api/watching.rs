//! Watches: what comes, in which order, and how they end.

use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use isopod_apiserver::Body;
use serde_json::{Value, json};

use crate::harness::{Cluster, config_map, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch under way, read line by line.
pub struct Watch {
    body: Body,
    buffer: BytesMut,
}

impl Watch {
    pub async fn open(cluster: &Cluster, url: &str, accept: &str) -> Self {
        let response = cluster.open(&format!("GET {url}"), &[("accept", accept)], "").await;
        assert_eq!(response.status(), 200, "{url}");
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    pub async fn start(cluster: &Cluster, url: &str) -> Self {
        Self::open(cluster, url, "application/json").await
    }

    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(serde_json::from_slice(&self.buffer.split_to(end + 1)).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(7_200), self.body.frame()).await.unwrap()?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// `TYPE name` of the next event.
    pub async fn line(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn events_follow_a_list_without_a_gap() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("before")).await;
    let list = cluster.ok(&format!("GET {CONFIG_MAPS}"), Value::Null).await;
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let mut watch =
        Watch::start(&cluster, &format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", version(&list))).await;
    assert_eq!(watch.next().await.unwrap(), json!({"type": "ADDED", "object": created}));
    let changed = cluster.ok(&format!("PATCH {CONFIG_MAPS}/x"), json!({"data": {"key": "new"}})).await;
    assert_eq!(watch.next().await.unwrap(), json!({"type": "MODIFIED", "object": changed}));
    cluster.create("configmaps", "kube-public", config_map("elsewhere")).await;
    cluster.ok(&format!("DELETE {CONFIG_MAPS}/x"), Value::Null).await;
    let deleted = watch.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["data"]), (&json!("DELETED"), &changed["data"]));
    assert!(version(&deleted["object"]) > version(&changed));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_the_state() {
    let cluster = Cluster::new().await;
    for name in ["a", "b"] {
        cluster.create("configmaps", "default", config_map(name)).await;
    }
    for query in ["watch=1", "watch=1&resourceVersion=0"] {
        let mut watch = Watch::start(&cluster, &format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!([watch.line().await, watch.line().await], ["ADDED a", "ADDED b"]);
    }
    let mut one = Watch::start(&cluster, &format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(one.line().await, "ADDED b");
    cluster.create("configmaps", "default", config_map("bb")).await;
    cluster.ok(&format!("DELETE {CONFIG_MAPS}/b"), Value::Null).await;
    assert_eq!(one.line().await, "DELETED b");
    let mut named = Watch::start(&cluster, &format!("{CONFIG_MAPS}/a?watch=1")).await;
    assert_eq!(named.line().await, "ADDED a");
}

#[tokio::test]
async fn watch_lists_mark_the_end_of_the_state() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::start(&cluster, &format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let mark = watch.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let created = cluster.create("configmaps", "default", config_map("b")).await;
    assert!(version(&mark["object"]) < version(&created));
    assert_eq!(watch.line().await, "ADDED b");
    let (code, _) = cluster.refused(&format!("GET {CONFIG_MAPS}?watch=1&sendInitialEvents=true"), Value::Null).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let cluster = Cluster::new().await;
    let mut on_node = Watch::start(&cluster, "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    let mut labelled = Watch::start(&cluster, "/api/v1/pods?watch=1&labelSelector=app%3Dp").await;
    cluster.create("pods", "default", pod("p")).await;
    assert_eq!(labelled.line().await, "ADDED p");
    cluster
        .ok(
            "POST /api/v1/namespaces/default/pods/p/binding",
            json!({"metadata": {"name": "p"}, "target": {"name": "n1"}}),
        )
        .await;
    assert_eq!([on_node.line().await, labelled.line().await], ["ADDED p", "MODIFIED p"]);
    let relabelled =
        cluster.ok("PATCH /api/v1/namespaces/default/pods/p", json!({"metadata": {"labels": {"app": "q"}}})).await;
    assert_eq!(on_node.line().await, "MODIFIED p");
    let left = labelled.next().await.unwrap();
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]["app"]), (&json!("DELETED"), &json!("p")));
    assert_eq!(version(&left["object"]), version(&relabelled));
}

#[tokio::test]
async fn bookmarks_come_and_the_watch_ends_in_time() {
    let cluster = Cluster::new().await;
    let list = cluster.ok(&format!("GET {CONFIG_MAPS}"), Value::Null).await;
    tokio::time::pause();
    let url =
        format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion={}", version(&list));
    let mut watch = Watch::start(&cluster, &url).await;
    let other = cluster.create("secrets", "default", json!({"metadata": {"name": "s"}})).await;
    for _ in 0..2 {
        let bookmark = watch.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(version(&bookmark["object"]), version(&other), "a bookmark moves with the whole store");
    }
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn an_old_version_is_answered_with_one_error() {
    let cluster = Cluster::new().await;
    tokio::time::pause();
    for _ in 0..8 {
        cluster.ok("PATCH /api/v1/namespaces/default", json!({"metadata": {"labels": {"n": uuid()}}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut watch = Watch::start(&cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    let error = watch.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_slow_reader_is_ended_and_nobody_else() {
    const QUEUE: usize = 64;
    let limits = isopod_store::Limits { watch_queue: QUEUE, ..isopod_store::Limits::default() };
    let cluster = Cluster::with_limits(limits).await;
    cluster.create("configmaps", "default", config_map("x")).await;
    let url = format!("{CONFIG_MAPS}?watch=1");
    let mut slow = Watch::start(&cluster, &url).await;
    let mut quick = Watch::start(&cluster, &url).await;
    assert_eq!([slow.line().await, quick.line().await], ["ADDED x", "ADDED x"]);
    // The server's own watches begin when it is idle.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = cluster.server.store_stats().watchers;
    for round in 0..3 * QUEUE {
        cluster.ok(&format!("PATCH {CONFIG_MAPS}/x"), json!({"data": {"round": round.to_string()}})).await;
        assert_eq!(quick.next().await.unwrap()["object"]["data"]["round"], round.to_string());
    }
    assert_eq!(cluster.server.store_stats().watchers, before - 1, "nothing more is kept for who does not read");
    // It is given what waited for it, then ends; with the last version it sees the rest without a gap.
    let (mut last, mut seen) = (Value::Null, 0);
    while let Some(event) = slow.next().await {
        assert_eq!(event["object"]["data"]["round"], seen.to_string());
        (last, seen) = (event["object"].clone(), seen + 1);
    }
    assert_eq!(seen, QUEUE);
    let mut again = Watch::start(&cluster, &format!("{url}&resourceVersion={}", version(&last))).await;
    for round in QUEUE..3 * QUEUE {
        assert_eq!(again.next().await.unwrap()["object"]["data"]["round"], round.to_string());
    }
}

fn uuid() -> String {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string()
}

#[tokio::test]
async fn a_watch_can_be_a_table() {
    let cluster = Cluster::new().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1"), accept).await;
    for (name, headers) in [("a", true), ("b", false)] {
        // Ages are those of the moment of the event, not of the watch's beginning.
        cluster.pass(60);
        cluster.create("configmaps", "default", config_map(name)).await;
        let event = watch.next().await.unwrap();
        assert_eq!(event["object"]["kind"], "Table");
        assert_eq!(event["object"]["rows"][0]["cells"], json!([name, 1, "0s"]));
        let columns = event["object"]["columnDefinitions"].as_array().map_or(0, Vec::len);
        assert_eq!(columns > 0, headers, "{event}");
    }
}
