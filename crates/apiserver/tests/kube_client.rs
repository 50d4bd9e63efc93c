//! kube-rs, which all of Isopod's own components use, through the in-process door.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures::TryStreamExt;
use isopod_apiserver::{ApiServer, Config, UserInfo};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event as Seen};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

async fn client() -> Client {
    let server = ApiServer::open(Config::default()).await.unwrap();
    Client::new(server.in_process(UserInfo::new("controller", ["system:masters"])), "default")
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}})).unwrap()
}

#[tokio::test]
async fn objects_come_and_go() {
    let client = client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let created = maps.create(&PostParams::default(), &config_map("x")).await.unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let patch = Patch::Merge(json!({"data": {"a": "c"}}));
    let patched = maps.patch("x", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap()["a"], "c");
    let mut stale = created.clone();
    stale.data = None;
    let refused = maps.replace("x", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
    assert_eq!(maps.list(&ListParams::default().limit(10)).await.unwrap().items.len(), 1);
    assert!(maps.list_metadata(&ListParams::default()).await.unwrap().items[0].metadata.uid.is_some());
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("x").await.unwrap().is_none());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert_eq!(namespaces.get("default").await.unwrap().status.unwrap().phase.as_deref(), Some("Active"));
    let services: Api<Service> = Api::default_namespaced(client.clone());
    assert_eq!(services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.as_deref(), Some("10.100.0.1"));
    assert!(client.apiserver_version().await.unwrap().git_version.starts_with("v1.36"));
}

#[tokio::test]
async fn configurations_are_applied() {
    let maps: Api<ConfigMap> = Api::default_namespaced(client().await);
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": value}});
    let by = |name: &str| PatchParams::apply(name);
    let created = maps.patch("x", &by("one"), &Patch::Apply(config("b"))).await.unwrap();
    let owner = &created.managed_fields()[0];
    assert_eq!((owner.manager.as_deref(), owner.operation.as_deref()), (Some("one"), Some("Apply")));
    assert_eq!(owner.fields_v1.as_ref().unwrap().0, json!({"f:data": {"f:a": {}}}));
    let again = maps.patch("x", &by("one"), &Patch::Apply(config("b"))).await.unwrap();
    assert_eq!(again.resource_version(), created.resource_version());
    let refused = maps.patch("x", &by("two"), &Patch::Apply(config("c"))).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"),
        "{refused}"
    );
    let forced = maps.patch("x", &by("two").force(), &Patch::Apply(config("c"))).await.unwrap();
    assert_eq!(forced.data.unwrap()["a"], "c");
    // Who says nothing else is known by its user.
    let replaced = maps.replace("x", &PostParams::default(), &config_map("x")).await.unwrap();
    assert_eq!(replaced.managed_fields()[0].manager.as_deref(), Some("controller"));
}

#[tokio::test]
async fn deployments_scale() {
    let deployments: Api<Deployment> = Api::default_namespaced(client().await);
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
        },
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scale = deployments.patch_scale("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(4));
    let status = Patch::Merge(json!({"status": {"readyReplicas": 2, "replicas": 4}}));
    let shown = deployments.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(shown.status.unwrap().ready_replicas, Some(2));
}

/// Names in the order they are seen, until `count` have come.
async fn seen(api: Api<ConfigMap>, config: watcher::Config, count: usize) -> Vec<String> {
    let mut stream = Box::pin(watcher::watcher(api, config));
    let mut names = Vec::new();
    while names.len() < count {
        let event = tokio::time::timeout(Duration::from_secs(10), stream.try_next()).await.unwrap().unwrap().unwrap();
        match event {
            Seen::InitApply(map) | Seen::Apply(map) => names.push(map.name_any()),
            Seen::Delete(map) => names.push(format!("-{}", map.name_any())),
            Seen::Init | Seen::InitDone => {}
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_follow_in_both_ways() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let maps: Api<ConfigMap> = Api::default_namespaced(client().await);
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        let watching = tokio::spawn(seen(maps.clone(), config, 3));
        tokio::time::sleep(Duration::from_millis(50)).await;
        maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
        maps.delete("a", &DeleteParams::default()).await.unwrap();
        assert_eq!(watching.await.unwrap(), ["a", "b", "-a"]);
    }
}

#[tokio::test]
async fn recorded_events_are_shown_to_kubectl() {
    let client = client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = maps.create(&PostParams::default(), &config_map("x")).await.unwrap();
    let recorder = Recorder::new(client.clone(), Reporter { controller: "isopod.dev/test".into(), instance: None });
    for _ in 0..2 {
        let event = kube::runtime::events::Event {
            type_: EventType::Normal,
            reason: "Tested".into(),
            note: Some("It works".into()),
            action: "Test".into(),
            secondary: None,
        };
        recorder.publish(&event, &map.object_ref(&())).await.unwrap();
    }
    let events: Api<Event> = Api::default_namespaced(client);
    let listed = events.list(&ListParams::default().fields("involvedObject.name=x")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(
        (listed.items[0].message.as_deref(), listed.items[0].reason.as_deref()),
        (Some("It works"), Some("Tested"))
    );
    assert_eq!(listed.items[0].series.as_ref().and_then(|series| series.count), Some(2));
}
