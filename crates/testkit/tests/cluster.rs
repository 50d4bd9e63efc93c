//! Whole clusters without privileges: what only shows when all parts run together.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, policy: &str, command: &[&str]) -> Value {
    let container = json!({"name": "c", "image": "busybox", "command": command});
    let spec = json!({"restartPolicy": policy, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn deployment(replicas: i64) -> Value {
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx", "command": ["serve"]}]}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn phase(expected: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["phase"] == expected
}

fn count(expected: usize) -> impl Fn(&Value) -> bool {
    move |list| list["items"].as_array().is_some_and(|items| items.len() == expected)
}

async fn cluster(name: &str) -> TestCluster {
    let cluster = TestCluster::start(name).await.unwrap();
    cluster.start_agent().await.unwrap();
    let accounts = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster
        .wait_for(accounts, "the default service account", |found| found["metadata"]["name"] == "default")
        .await
        .unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_node_of_its_own_and_both_go_together() {
    let cluster = cluster("pod").await;
    cluster.create(PODS, pod("p", "Always", &["serve"])).await.unwrap();
    let pod = cluster.wait_for(&format!("{PODS}/p"), "Running", phase("Running")).await.unwrap();
    assert_eq!(pod["metadata"]["annotations"]["CapacityProvisioned"], "0.25vCPU 0.5GB");
    let node = format!("/api/v1/nodes/{}", pod["spec"]["nodeName"].as_str().unwrap());
    let ready = |node: &Value| {
        node["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    let node = cluster.wait_for(&node, "a ready node", ready).await.unwrap();
    let runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap();
    assert!(runtime.contains("simulated"), "a simulation says so: {runtime}");
    assert_eq!(cluster.host.machines().len(), 1);
    cluster.delete(&format!("{PODS}/p")).await.unwrap();
    cluster.wait_for("/api/v1/nodes", "no node", count(0)).await.unwrap();
    assert!(cluster.host.machines().is_empty());
    let records = cluster.list("/apis/isopod.dev/v1alpha1/usagerecords").await;
    assert!(records.len() == 1 && records[0]["spec"]["endTime"].is_string(), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_guests() {
    let cluster = cluster("exit").await;
    for (name, code, expected) in [("good", "0", "Succeeded"), ("bad", "3", "Failed")] {
        cluster.create(PODS, pod(name, "Never", &["exit", code])).await.unwrap();
        let pod = cluster.wait_for(&format!("{PODS}/{name}"), expected, phase(expected)).await.unwrap();
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(ended["exitCode"].to_string(), code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_scales_and_its_garbage_goes() {
    let cluster = cluster("deployment").await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    cluster.create(path, deployment(20)).await.unwrap();
    let ready = |n: i64| move |d: &Value| d["status"]["readyReplicas"].as_i64().unwrap_or(0) == n;
    cluster.wait_for(&format!("{path}/web"), "20 ready", ready(20)).await.unwrap();
    let addresses: std::collections::BTreeSet<String> =
        cluster.list(PODS).await.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
    assert_eq!(addresses.len(), 20, "every pod has an address of its own");
    cluster.patch(&format!("{path}/web"), json!({"spec": {"replicas": 3}})).await.unwrap();
    cluster.wait_for(PODS, "3 pods", count(3)).await.unwrap();
    cluster.wait_for("/api/v1/nodes", "3 nodes", count(3)).await.unwrap();
    cluster.delete(&format!("{path}/web")).await.unwrap();
    cluster.wait_for(PODS, "no pod", count(0)).await.unwrap();
    cluster.wait_for("/apis/apps/v1/namespaces/default/replicasets", "no replica set", count(0)).await.unwrap();
}

/// Kinds that come while the controllers run are theirs too.
#[tokio::test(flavor = "multi_thread")]
async fn custom_objects_own_and_go_with_their_namespace() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let cluster = cluster("custom").await;
    let names = json!({"plural": "tabs", "kind": "Tab"});
    let versions =
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]);
    let spec = json!({"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions});
    let definition = json!({"metadata": {"name": "tabs.example.com"}, "spec": spec});
    cluster.create(DEFINITIONS, definition).await.unwrap();
    let established = |found: &Value| {
        let conditions = found["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
    };
    cluster.wait_for(&format!("{DEFINITIONS}/tabs.example.com"), "the definition", established).await.unwrap();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.unwrap();
    let (tabs, maps) = ("/apis/example.com/v1/namespaces/team/tabs", "/api/v1/namespaces/team/configmaps");
    let owner = cluster.create(tabs, json!({"metadata": {"name": "owner"}})).await.unwrap();
    let other = cluster.create(tabs, json!({"metadata": {"name": "other"}})).await.unwrap();
    let of = |name: &str, owner: &Value| {
        let uid = &owner["metadata"]["uid"];
        let owner =
            json!({"apiVersion": "example.com/v1", "kind": "Tab", "name": owner["metadata"]["name"], "uid": uid});
        json!({"metadata": {"name": name, "ownerReferences": [owner]}})
    };
    cluster.create(maps, of("dependent", &owner)).await.unwrap();
    cluster.create(maps, of("kept", &other)).await.unwrap();
    cluster.delete(&format!("{tabs}/owner")).await.unwrap();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().into_iter().flatten();
        items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    let collected = |list: &Value| !names(list).contains(&"dependent".to_owned());
    let left = cluster.wait_for(maps, "the dependent's end", collected).await.unwrap();
    assert!(names(&left).contains(&"kept".to_owned()), "{left}");
    cluster.delete("/api/v1/namespaces/team").await.unwrap();
    let gone = |list: &Value| !names(list).contains(&"team".to_owned());
    cluster.wait_for("/api/v1/namespaces", "the namespace's end", gone).await.unwrap();
    assert!(cluster.list("/apis/example.com/v1/tabs").await.is_empty());
    cluster.delete(&format!("{DEFINITIONS}/tabs.example.com")).await.unwrap();
    cluster.wait_for(DEFINITIONS, "no definition", count(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_adopts_what_runs() {
    let cluster = TestCluster::start("adopt").await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    let accounts = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster
        .wait_for(accounts, "the default service account", |found| found["metadata"]["name"] == "default")
        .await
        .unwrap();
    cluster.create(PODS, pod("p", "Always", &["serve"])).await.unwrap();
    cluster.wait_for(&format!("{PODS}/p"), "Running", phase("Running")).await.unwrap();
    let machines = cluster.host.machines();
    agent.cancel();
    cluster.start_agent().await.unwrap();
    assert_eq!(cluster.host.machines(), machines, "the microVM runs on");
    cluster.host.kill_all();
    let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    let pod = cluster.wait_for(&format!("{PODS}/p"), "a restart", restarted).await.unwrap();
    let reason = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"];
    assert_eq!(reason, "ContainerStatusUnknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_namespace_takes_its_pods_first() {
    let cluster = cluster("namespace").await;
    let profile = json!({"apiVersion": "isopod.dev/v1alpha1", "kind": "FargateProfile", "metadata": {"name": "fp-team"}, "spec": {"selectors": [{"namespace": "team-*"}]}});
    cluster.create("/apis/isopod.dev/v1alpha1/fargateprofiles", profile).await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}});
    cluster.create("/api/v1/namespaces", namespace).await.unwrap();
    let account = "/api/v1/namespaces/team-a/serviceaccounts/default";
    cluster.wait_for(account, "its service account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let pods = "/api/v1/namespaces/team-a/pods";
    cluster.create(pods, pod("p", "Always", &["serve"])).await.unwrap();
    cluster.wait_for(&format!("{pods}/p"), "Running", phase("Running")).await.unwrap();
    cluster.delete("/api/v1/namespaces/team-a").await.unwrap();
    let gone = |list: &Value| {
        list["items"].as_array().is_some_and(|all| all.iter().all(|n| n["metadata"]["name"] != "team-a"))
    };
    cluster.wait_for("/api/v1/namespaces", "no namespace", gone).await.unwrap();
    assert!(cluster.host.machines().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_shows_and_the_pod_can_go() {
    let cluster = cluster("image").await;
    let mut wrong = pod("p", "Always", &["serve"]);
    wrong["spec"]["containers"][0]["image"] = json!("missing:1");
    cluster.create(PODS, wrong).await.unwrap();
    let waiting =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff";
    cluster.wait_for(&format!("{PODS}/p"), "ImagePullBackOff", waiting).await.unwrap();
    cluster.delete(&format!("{PODS}/p")).await.unwrap();
    cluster.wait_for("/api/v1/nodes", "no node", count(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_container_is_added_to_a_pod_that_runs() {
    let cluster = cluster("debug").await;
    cluster.create(PODS, pod("p", "Always", &["serve"])).await.unwrap();
    cluster.wait_for(&format!("{PODS}/p"), "Running", phase("Running")).await.unwrap();
    let add = |containers: Value| json!({"spec": {"ephemeralContainers": containers}});
    let one = json!({"name": "d", "image": "busybox", "command": ["exit", "4"], "targetContainerName": "c"});
    cluster.patch(&format!("{PODS}/p/ephemeralcontainers"), add(json!([one]))).await.unwrap();
    let ended = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4;
    let pod = cluster.wait_for(&format!("{PODS}/p"), "the debugger's end", ended).await.unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["containerStatuses"][0]["ready"]),
        (&json!("Running"), &json!(true))
    );
    // What Fargate refuses of others it refuses of this one, and says so; the rest of the pod goes on.
    let two = json!({"name": "e", "image": "busybox", "command": ["serve"], "securityContext": {"privileged": true}});
    cluster.patch(&format!("{PODS}/p/ephemeralcontainers"), add(json!([one, two]))).await.unwrap();
    let waits = |pod: &Value| {
        let message = &pod["status"]["ephemeralContainerStatuses"][1]["state"]["waiting"]["message"];
        message.as_str().is_some_and(|text| text.contains("not supported on Fargate"))
    };
    let pod = cluster.wait_for(&format!("{PODS}/p"), "the refusal", waits).await.unwrap();
    assert_eq!(pod["status"]["conditions"][2]["status"], "True", "{pod}");
    assert_eq!(cluster.host.machines().len(), 1);
    let records = cluster.list("/apis/isopod.dev/v1alpha1/usagerecords").await;
    assert_eq!(records.len(), 1, "metered as before");
    cluster.delete(&format!("{PODS}/p")).await.unwrap();
    cluster.wait_for("/api/v1/nodes", "no node", count(0)).await.unwrap();
}

fn condition<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name)
}

/// A merge patch of the one container of a pod.
fn resized(pod: &Value, cpu: &str) -> Value {
    let mut containers = pod["spec"]["containers"].clone();
    containers[0]["resources"]["requests"]["cpu"] = json!(cpu);
    json!({"spec": {"containers": containers}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_resized_within_its_machine() {
    let cluster = cluster("resize").await;
    let mut small = pod("p", "Always", &["serve"]);
    small["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    cluster.create(PODS, small).await.unwrap();
    let path = format!("{PODS}/p");
    let pod = cluster.wait_for(&path, "Running", phase("Running")).await.unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"], "100m");
    let has = |cpu: &'static str| {
        move |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            status["resources"]["requests"]["cpu"] == cpu && status["allocatedResources"]["cpu"] == cpu
        }
    };
    cluster.patch(&format!("{path}/resize"), resized(&pod, "200m")).await.unwrap();
    let now = cluster.wait_for(&path, "more", has("200m")).await.unwrap();
    assert_eq!(now["status"]["containerStatuses"][0]["restartCount"], 0, "{now}");
    assert_eq!(now["metadata"]["annotations"]["CapacityProvisioned"], "0.25vCPU 0.5GB");
    cluster.patch(&format!("{path}/resize"), resized(&pod, "2")).await.unwrap();
    let refused = |pod: &Value| condition(pod, "PodResizePending").is_some();
    let now = cluster.wait_for(&path, "the refusal", refused).await.unwrap();
    let pending = condition(&now, "PodResizePending").unwrap();
    assert_eq!(
        (&pending["reason"], &pending["observedGeneration"]),
        (&json!("Infeasible"), &now["metadata"]["generation"])
    );
    assert!(pending["message"].as_str().unwrap().contains("0.25vCPU 0.5GB"), "{pending}");
    assert!(has("200m")(&now), "{now}");
    // What starts anew starts with what was set aside, not with what is wanted.
    cluster.host.kill_all();
    let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    let now = cluster.wait_for(&path, "a restart", restarted).await.unwrap();
    assert!(has("200m")(&now), "{now}");
    cluster.patch(&format!("{path}/resize"), resized(&pod, "250m")).await.unwrap();
    let now = cluster.wait_for(&path, "what fits", |pod| has("250m")(pod) && !refused(pod)).await.unwrap();
    assert_eq!(condition(&now, "PodResizeInProgress"), None);
    let events = cluster.list("/api/v1/namespaces/default/events").await;
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeInfeasible"] {
        assert!(events.iter().any(|event| event["reason"] == reason), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_say_of_a_node_and_its_pod_is_set_right() {
    let cluster = cluster("unknown").await;
    cluster.create(PODS, pod("p", "Always", &["serve"])).await.unwrap();
    let is = |status: &'static str| {
        move |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == status)
        }
    };
    let path = format!("{PODS}/p");
    let pod = cluster.wait_for(&path, "a ready pod", is("True")).await.unwrap();
    let node = format!("/api/v1/nodes/{}", pod["spec"]["nodeName"].as_str().unwrap());
    cluster.wait_for(&node, "a ready node", is("True")).await.unwrap();
    for (path, status) in [(&node, "Unknown"), (&path, "False")] {
        let wrong = json!([{"type": "Ready", "status": status}]);
        let answer = cluster.patch(&format!("{path}/status"), json!({"status": {"conditions": wrong}})).await.unwrap();
        assert!(is(status)(&answer), "{answer}");
        cluster.wait_for(path, "the truth", is("True")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_waits_for_what_others_say_and_leaves_it_alone() {
    let cluster = cluster("gates").await;
    let mut gated = pod("p", "Never", &["serve"]);
    gated["spec"]["readinessGates"] = json!([{"conditionType": "example.com/lb"}]);
    cluster.create(PODS, gated).await.unwrap();
    let condition = |pod: &Value, type_: &str| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == type_).unwrap_or_default()
    };
    let path = format!("{PODS}/p");
    let waits = |pod: &Value| condition(pod, "Ready")["reason"] == "ReadinessGatesNotReady";
    let found = cluster.wait_for(&path, "the gate", waits).await.unwrap();
    assert_eq!(condition(&found, "ContainersReady")["status"], "True");
    assert_eq!(condition(&found, "Ready")["observedGeneration"], 1);
    let mut conditions = found["status"]["conditions"].clone();
    conditions
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "example.com/lb", "status": "True", "message": "in service"}));
    cluster.patch(&format!("{path}/status"), json!({"status": {"conditions": conditions}})).await.unwrap();
    let ready = |pod: &Value| condition(pod, "Ready")["status"] == "True";
    let found = cluster.wait_for(&path, "readiness", ready).await.unwrap();
    assert_eq!(condition(&found, "Ready")["reason"], json!(null), "{found}");
    // What comes later leaves the condition as it is.
    cluster.host.kill_all();
    let found = cluster.wait_for(&path, "its end", phase("Failed")).await.unwrap();
    assert_eq!(condition(&found, "example.com/lb")["message"], "in service");
    assert_eq!(condition(&found, "Ready")["status"], "False");
}
