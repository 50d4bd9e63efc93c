//! kubectl's typed clients, which speak protobuf: what Go makes of our messages, printed as JSON, is what we have.

use serde_json::{Value, json};

use crate::client::Kubectl;
use crate::site::Site;

const MEDIA: &str = "Content-Type: application/vnd.kubernetes.protobuf";

/// Without what Go's JSON shows and ours need not: empty structs, lists, maps, and zeros.
fn essence(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        Value::Null => true,
    };
    match value {
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| (name.clone(), essence(value)));
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(list) => list.iter().map(essence).collect(),
        other => other.clone(),
    }
}

/// Items of a list, without their types and what kubectl does not print.
fn items(list: &Value) -> Vec<Value> {
    let mut items: Vec<Value> = list["items"].as_array().into_iter().flatten().map(essence).collect();
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.shift_remove("apiVersion");
        item.shift_remove("kind");
        item["metadata"].as_object_mut().unwrap().shift_remove("managedFields");
    }
    items
}

/// A cluster with one of each; none where there is no kubectl.
async fn filled() -> Option<Site> {
    Kubectl::newest()?;
    let site = Site::open().await;
    site.running_pod("p", &["main", "side"]).await;
    let labels = json!({"app": "d"});
    let container = json!({
        "name": "main", "image": "nginx", "env": [{"name": "A", "value": "é"}, {"name": "B", "valueFrom": {
            "secretKeyRef": {"name": "s", "key": "k", "optional": true}}}],
        "ports": [{"containerPort": 80, "name": "http"}], "command": ["sh", "-c", "sleep 1"],
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "livenessProbe": {"httpGet": {"port": "http", "path": "/"}}, "readinessProbe": {"tcpSocket": {"port": 80}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "c", "mountPath": "/c", "readOnly": true}],
    });
    let template = json!({"metadata": {"labels": labels}, "spec": {
        "containers": [container], "terminationGracePeriodSeconds": 0, "nodeSelector": {"a": "b"},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 256}}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]}}},
    }});
    let selector = json!({"matchLabels": labels});
    let spec = json!({"replicas": 0, "selector": selector, "template": template});
    let mut sets = spec.clone();
    sets.as_object_mut().unwrap().shift_remove("replicas");
    for (plural, spec) in [("deployments", &spec), ("replicasets", &spec), ("daemonsets", &sets)] {
        let path = format!("/apis/apps/v1/namespaces/default/{plural}");
        site.post(&path, json!({"metadata": {"name": "d", "annotations": {"a/b": "c"}}, "spec": spec})).await;
    }
    let service = json!({"selector": labels, "ports": [{"name": "m", "port": 80, "targetPort": "http"}, {"name": "n", "port": 81, "targetPort": 8081}]});
    site.post("/api/v1/namespaces/default/services", json!({"metadata": {"name": "d"}, "spec": service})).await;
    let node = json!({"metadata": {"name": "node-1"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}});
    site.post("/api/v1/nodes", node).await;
    let status = json!({"capacity": {"cpu": "2", "memory": "4Gi"}, "conditions": [{"type": "Ready", "status": "True",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]});
    site.status("/api/v1/nodes/node-1", status).await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested", "message": "for a test", "type": "Normal", "count": 3,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "eventTime": null});
    site.post("/api/v1/namespaces/default/events", event).await;
    Some(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn go_reads_what_we_write() {
    let Some(site) = filled().await else { return };
    let into = site.directory.path().join("dump");
    let said = site
        .kubectl(&format!("-v=8 cluster-info dump --namespaces default --output-directory {}", into.display()))
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains(MEDIA), "{}", said.err);
    let get = async |path: &str| site.request("GET", path, "", Value::Null).await;
    for (file, path, count) in [
        ("nodes", "/api/v1/nodes", 1),
        ("default/pods", "/api/v1/namespaces/default/pods", 1),
        ("default/services", "/api/v1/namespaces/default/services", 2),
        ("default/events", "/api/v1/namespaces/default/events", 1),
        ("default/deployments", "/apis/apps/v1/namespaces/default/deployments", 1),
        ("default/replicasets", "/apis/apps/v1/namespaces/default/replicasets", 1),
        ("default/daemonsets", "/apis/apps/v1/namespaces/default/daemonsets", 1),
    ] {
        let read = std::fs::read_to_string(into.join(format!("{file}.json"))).unwrap();
        let (found, wanted) = (items(&serde_json::from_str(&read).unwrap()), items(&get(path).await));
        assert_eq!(wanted.len(), count, "{path}");
        assert_eq!(found, wanted, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_writes_and_asks_in_protobuf() {
    let Some(site) = filled().await else { return };
    for (line, part) in [
        ("-v=8 auth can-i get pods", "yes"),
        ("-v=8 create token default", "ey"),
        ("-v=8 create role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        ("-v=8 autoscale deployment d --max=3 --cpu-percent=70", "horizontalpodautoscaler.autoscaling/d autoscaled"),
        ("-v=8 describe deployment d", "RollingUpdateStrategy:  25% max unavailable, 25% max surge"),
        ("-v=8 describe pod p", "Started:      Thu, 01 Jan 2026 00:00:00 +0000"),
    ] {
        let said = site.kubectl(line).await;
        assert!(said.code == 0 && said.out.contains(part), "{line}: {said:?}");
        assert!(said.err.contains(MEDIA), "{line}: {}", said.err);
    }
    let goal =
        site.request("GET", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/d", "", Value::Null);
    assert_eq!(goal.await["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    // A refusal reaches people in words.
    let said = site.kubectl("-v=8 create token none").await;
    assert!(said.err.contains("serviceaccounts \"none\" not found") && said.err.contains(MEDIA), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_watches_in_protobuf() {
    let Some(site) = filled().await else { return };
    let before = site.server.store_stats().watchers;
    let label = async {
        while site.server.store_stats().watchers == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let patch = json!({"metadata": {"labels": {"app": "d"}}});
        site.request("PATCH", "/api/v1/namespaces/default/pods/p", "application/merge-patch+json", patch).await
    };
    // There is no pod of the deployment yet, so it watches for one.
    let (said, _) = tokio::join!(site.kubectl("-v=8 logs deployment/d -c main"), label);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains(&format!("{MEDIA};stream=watch")) && said.err.contains("pods/p/log"), "{}", said.err);
}
