//! status, scale, binding, eviction and token.

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::{Cluster, deployment, pod};

const POD: &str = "/api/v1/namespaces/default/pods/p";
const SCALE: &str = "/apis/apps/v1/namespaces/default/deployments/d/scale";

#[tokio::test]
async fn scale_is_a_view_of_the_object() {
    let cluster = Cluster::new().await;
    let created = cluster.create("apps/v1/deployments", "default", deployment("d", 2)).await;
    let mut scale = cluster.ok(&format!("GET {SCALE}"), Value::Null).await;
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=d")));
    scale["spec"]["replicas"] = 5.into();
    let scaled = cluster.ok(&format!("PUT {SCALE}"), scale.clone()).await;
    assert_eq!(scaled["spec"]["replicas"], 5);
    assert_eq!(cluster.refused(&format!("PUT {SCALE}"), scale).await.0, 409);
    assert_eq!(cluster.refused(&format!("PATCH {SCALE}"), json!({"spec": {"replicas": -1}})).await.0, 422);
    assert_eq!(
        cluster.ok(&format!("PATCH {SCALE}"), json!({"spec": {"replicas": 0}})).await["spec"],
        json!({"replicas": 0})
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::new().await;
    let created = cluster.create("pods", "default", pod("p")).await;
    let binding = |node: &str| json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": node}});
    let mut other = binding("n");
    other["metadata"]["uid"] = "other".into();
    let table = [
        (json!({"target": {"kind": "Node", "name": "n"}}), 400, "name in URL does not match name in Binding object"),
        (json!({"metadata": {"name": "p"}, "target": {"kind": "Node"}}), 422, "target.name: Required value"),
        (
            json!({"metadata": {"name": "p"}, "target": {"kind": "Rack", "name": "n"}}),
            422,
            "target.kind: Unsupported value",
        ),
        (other, 409, "Precondition failed: UID"),
    ];
    for (body, code, part) in table {
        let (found, message) = cluster.refused(&format!("POST {POD}/binding"), body).await;
        assert_eq!((found, message.contains(part)), (code, true), "{message}");
    }
    let nominated = json!({"status": {"nominatedNodeName": "other"}});
    cluster.ok(&format!("PATCH {POD}/status"), nominated).await;
    let mut node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}});
    node["kind"] = "Node".into();
    cluster.create("nodes", "", node).await;
    let answer = cluster.ask("POST /api/v1/namespaces/default/bindings", &[], &binding("n").to_string()).await;
    assert_eq!((answer.code, &answer.json()["status"]), (201, &json!("Success")));
    let bound = cluster.ok(&format!("GET {POD}"), Value::Null).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
    assert_eq!(
        (&bound["status"]["conditions"][0]["type"], &bound["status"]["conditions"][0]["status"]),
        (&json!("PodScheduled"), &json!("True"))
    );
    assert_eq!(bound["status"]["nominatedNodeName"], Value::Null, "what was a hint is decided");
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
    assert_eq!(bound["metadata"]["generation"], created["metadata"]["generation"]);
    let (code, message) = cluster.refused(&format!("POST {POD}/binding"), binding("m")).await;
    assert_eq!((code, message.contains("pod p is already assigned to node \"n\"")), (409, true), "{message}");
}

#[tokio::test]
async fn status_is_written_apart() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let line = format!("PATCH {POD}/status");
    let patched =
        cluster.ok(&line, json!({"status": {"phase": "Running"}, "spec": {"activeDeadlineSeconds": 9}})).await;
    assert_eq!(
        (&patched["status"]["phase"], &patched["spec"]["activeDeadlineSeconds"]),
        (&json!("Running"), &Value::Null)
    );
    let mut whole = patched.clone();
    whole["status"]["phase"] = "Failed".into();
    assert_eq!(cluster.ok(&format!("PUT {POD}"), whole.clone()).await["status"]["phase"], "Running");
    whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(cluster.ok(&format!("PUT {POD}/status"), whole).await["status"]["phase"], "Failed");
    assert_eq!(cluster.ok(&format!("GET {POD}/status"), Value::Null).await["status"]["phase"], "Failed");
}

#[tokio::test]
async fn evictions_ask_the_budget() {
    let cluster = Cluster::new().await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}});
    cluster.create("policy/v1/poddisruptionbudgets", "default", budget).await;
    cluster.create("pods", "default", pod("p")).await;
    cluster.ok(&format!("POST {POD}/binding"), json!({"metadata": {"name": "p"}, "target": {"name": "n"}})).await;
    let ready = json!([{"type": "Ready", "status": "True"}]);
    cluster.ok(&format!("PATCH {POD}/status"), json!({"status": {"phase": "Running", "conditions": ready}})).await;
    let (code, message) = cluster.refused(&format!("POST {POD}/eviction"), eviction.clone()).await;
    assert_eq!((code, message.as_str()), (429, "Cannot evict pod as it would violate the pod's disruption budget."));
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b";
    cluster.ok(&format!("PATCH {path}/status"), json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}})).await;
    cluster.ok(&format!("POST {POD}/eviction"), eviction).await;
    let spent = cluster.ok(&format!("GET {path}"), Value::Null).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["p"].is_string(), "{spent}");
    let owners = spent["metadata"]["managedFields"].as_array().unwrap();
    let server = owners.iter().find(|owner| owner["manager"] == "system:apiserver").unwrap();
    assert_eq!(
        (&server["subresource"], &server["fieldsV1"]["f:status"]["f:disruptionsAllowed"]),
        (&json!("status"), &json!({}))
    );
    assert_eq!(cluster.ok(&format!("GET {POD}"), Value::Null).await["metadata"]["deletionGracePeriodSeconds"], 30);
}

#[tokio::test]
async fn what_is_not_carried_out_is_refused_by_name() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let table = [(format!("GET {POD}/exec?command=x&stdout=1"), Value::Null, "Upgrade request required")];
    for (line, body, part) in table {
        let (_, message) = cluster.refused(&line, body).await;
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[tokio::test]
async fn token_secrets_are_filled() {
    let cluster = Cluster::new().await;
    let secret = |name: &str, account: &str| {
        json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token",
        })
    };
    let account = cluster.ok("GET /api/v1/namespaces/default/serviceaccounts/default", Value::Null).await;
    let uid = &account["metadata"]["uid"];
    let made = cluster.create("secrets", "default", secret("s", "default")).await;
    assert_eq!(&made["metadata"]["annotations"]["kubernetes.io/service-account.uid"], uid);
    assert_eq!(
        (&made["metadata"]["ownerReferences"][0]["uid"], &made["data"]["namespace"]),
        (uid, &json!("ZGVmYXVsdA=="))
    );
    let decoded = |key: &str| {
        let text = made["data"][key].as_str().unwrap();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
    };
    assert!(decoded("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let token = decoded("token");
    let review = || async {
        let body = json!({"spec": {"token": token}});
        cluster.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
    };
    assert_eq!(review().await["user"]["username"], "system:serviceaccount:default:default");
    // What is taken out comes back; what is not there to be named stays empty.
    let path = "/api/v1/namespaces/default/secrets";
    let again = cluster.ok(&format!("PATCH {path}/s"), json!({"data": {"token": null}})).await;
    assert!(again["data"]["token"].is_string());
    for (name, account) in [("none", "nobody"), ("other", "default")] {
        let mut secret = secret(name, account);
        if name == "other" {
            secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "u".into();
        }
        assert_eq!(cluster.create("secrets", "default", secret).await["data"], Value::Null);
    }
    let dry = cluster.ok(&format!("POST {path}?dryRun=All"), secret("dry", "default")).await;
    assert_eq!(dry["data"], Value::Null);
    cluster.ok(&format!("DELETE {path}/s"), Value::Null).await;
    assert_eq!(review().await["authenticated"], Value::Null, "the secret is gone");
}

#[tokio::test]
async fn tokens_are_bound() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound =
        json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}, "expirationSeconds": 600}});
    let answer = cluster.ok(&format!("POST {path}"), bound).await;
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T00:10:00Z");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let review = || async {
        let body = json!({"spec": {"token": token}});
        cluster.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
    };
    let status = review().await;
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:default"))
    );
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    cluster.ok(&format!("DELETE {POD}"), Value::Null).await;
    assert_eq!(review().await["authenticated"], Value::Null, "the pod is gone");
    let table = [
        (json!({"spec": {"expirationSeconds": 5}}), 422),
        (json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "none"}}}), 404),
        (json!({"spec": {"boundObjectRef": {"kind": "Rack", "name": "r"}}}), 400),
    ];
    for (body, code) in table {
        assert_eq!(cluster.refused(&format!("POST {path}"), body).await.0, code);
    }
}
