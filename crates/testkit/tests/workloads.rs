//! Workloads in whole clusters: the controllers against the real API server, on simulated microVMs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: &str = "/api/v1/namespaces/default/pods";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";

/// A cluster with an agent, and what keeps it running.
async fn cluster(name: &str) -> (TestCluster, CancellationToken) {
    let cluster = TestCluster::start(name).await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.wait_for(account, "the service account", |found| found["metadata"]["name"] == "default").await.unwrap();
    (cluster, agent)
}

fn template(command: &[&str], policy: &str) -> Value {
    let container = json!({"name": "c", "image": "busybox", "command": command});
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": policy, "containers": [container]}})
}

fn selector() -> Value {
    json!({"matchLabels": {"app": "web"}})
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

fn field(path: &'static str, expected: i64) -> impl Fn(&Value) -> bool {
    move |object| object.pointer(path).and_then(Value::as_i64) == Some(expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_comes_up_in_order_rolls_and_goes() {
    let (cluster, _agent) = cluster("stateful").await;
    let spec = json!({"replicas": 3, "serviceName": "web", "selector": selector(), "template": template(&["serve"], "Always")});
    cluster.create(STATEFUL_SETS, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let path = format!("{STATEFUL_SETS}/web");
    cluster.wait_for(&path, "3 ready", field("/status/readyReplicas", 3)).await.unwrap();
    assert_eq!(names(&cluster.get(PODS).await.unwrap()), ["web-0", "web-1", "web-2"]);
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"round": "2"}}}}});
    cluster.patch(&path, patch).await.unwrap();
    let rolled = |set: &Value| {
        let status = &set["status"];
        status["observedGeneration"] == 2
            && status["updatedReplicas"] == 3
            && status["readyReplicas"] == 3
            && status["currentRevision"] == status["updateRevision"]
    };
    cluster.wait_for(&path, "the new template", rolled).await.unwrap();
    let rounds = cluster.list(PODS).await.iter().filter(|pod| pod["metadata"]["annotations"]["round"] == "2").count();
    assert_eq!(rounds, 3);
    cluster.patch(&path, json!({"spec": {"replicas": 1}})).await.unwrap();
    cluster.wait_for(PODS, "one pod", |pods| names(pods) == ["web-0"]).await.unwrap();
    let events = cluster.list("/api/v1/namespaces/default/events").await;
    let text = "create Pod web-0 in StatefulSet web successful";
    assert!(events.iter().any(|event| event["reason"] == "SuccessfulCreate" && event["message"] == text));
    cluster.delete(&path).await.unwrap();
    cluster.wait_for(PODS, "no pod", |pods| names(pods).is_empty()).await.unwrap();
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    cluster.wait_for(revisions, "no revision", |found| names(found).is_empty()).await.unwrap();
}

/// A controller of pods that a quota refuses says so, and goes on when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_shows_as_a_condition_until_there_is_room() {
    let (cluster, _agent) = cluster("failure").await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}});
    cluster.create(quotas, quota).await.unwrap();
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let spec = json!({"replicas": 4, "selector": {"app": "web"}, "template": template(&["serve"], "Always")});
    cluster.create(controllers, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let path = format!("{controllers}/web");
    let failing = |found: &Value| {
        let conditions = found["status"]["conditions"].as_array();
        conditions
            .is_some_and(|all| all.iter().any(|one| one["type"] == "ReplicaFailure" && one["reason"] == "FailedCreate"))
    };
    let found = cluster.wait_for(&path, "the condition", failing).await.unwrap();
    assert!(found["status"]["conditions"][0]["message"].as_str().unwrap().contains("exceeded quota"), "{found}");
    cluster.patch(&format!("{quotas}/few"), json!({"spec": {"hard": {"pods": "9"}}})).await.unwrap();
    let well = |found: &Value| found["status"]["readyReplicas"] == 4 && !failing(found);
    cluster.wait_for(&path, "4 ready pods", well).await.unwrap();
}

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn condition(type_: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |object| {
        let conditions = object["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == type_ && one["status"] == "True" && one["reason"] == reason)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_fail_and_leave_nothing_behind() {
    let (cluster, _agent) = cluster("jobs").await;
    let job = |name: &str, code: &str, more: Value| {
        let mut spec = more;
        spec["template"] = template(&["exit", code], "Never");
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let indexed = json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed"});
    cluster.create(JOBS, job("good", "0", indexed)).await.unwrap();
    let good = format!("{JOBS}/good");
    let done = cluster.wait_for(&good, "completion", condition("Complete", "CompletionsReached")).await.unwrap();
    assert_eq!((&done["status"]["succeeded"], &done["status"]["completedIndexes"]), (&json!(5), &json!("0-4")));
    assert!(done["status"]["completionTime"].is_string() && done["status"]["startTime"].is_string(), "{done}");
    cluster.create(JOBS, job("bad", "3", json!({"backoffLimit": 0, "ttlSecondsAfterFinished": 0}))).await.unwrap();
    cluster.wait_for(&format!("{JOBS}/bad"), "its end by its own wish", Value::is_null).await.unwrap();
    cluster.wait_for(PODS, "only pods of the other job", |pods| names(pods).len() == 5).await.unwrap();
    cluster.delete(&format!("{good}?propagationPolicy=Background")).await.unwrap();
    cluster.wait_for(PODS, "no pods", |pods| names(pods).is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_lets_its_running_pods_go() {
    let (cluster, _agent) = cluster("job-end").await;
    let spec = json!({"completions": 2, "parallelism": 2, "template": template(&["serve"], "Never")});
    cluster.create(JOBS, json!({"metadata": {"name": "long"}, "spec": spec})).await.unwrap();
    let path = format!("{JOBS}/long");
    cluster.wait_for(&path, "2 ready", field("/status/ready", 2)).await.unwrap();
    cluster.patch(&path, json!({"spec": {"suspend": true}})).await.unwrap();
    cluster.wait_for(&path, "suspension", condition("Suspended", "JobSuspended")).await.unwrap();
    cluster.wait_for(PODS, "no pods", |pods| names(pods).is_empty()).await.unwrap();
    cluster.patch(&path, json!({"spec": {"suspend": false}})).await.unwrap();
    cluster.wait_for(&path, "2 ready", field("/status/ready", 2)).await.unwrap();
    cluster.delete(&format!("{path}?propagationPolicy=Foreground")).await.unwrap();
    cluster.wait_for(PODS, "no pods", |pods| names(pods).is_empty()).await.unwrap();
    cluster.wait_for(&path, "no job", Value::is_null).await.unwrap();
}

/// Makes a node that answers without running anything, and a namespace that no profile matches.
async fn make_worker(cluster: &TestCluster, name: &str) {
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": name, "labels": {"os": "linux"}}})).await.unwrap();
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let status = json!({"status": {"capacity": allocatable, "allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.patch(&format!("/api/v1/nodes/{name}/status"), status).await.unwrap();
}

/// Says of every pod that is bound that it is ready, as a node agent would.
async fn make_ready(cluster: &TestCluster, pods: &str) {
    for pod in cluster.list(pods).await {
        if pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] != "Running" {
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
            let path = format!("{pods}/{}/status", pod["metadata"]["name"].as_str().unwrap());
            // A pod may be gone by now.
            drop(cluster.patch(&path, json!({"status": {"phase": "Running", "conditions": ready}})).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_pod_on_every_worker_and_none_on_fargate() {
    let (cluster, _agent) = cluster("daemons").await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "system"}})).await.unwrap();
    let account = "/api/v1/namespaces/system/serviceaccounts/default";
    cluster.wait_for(account, "the service account", |found| found["metadata"]["name"] == "default").await.unwrap();
    make_worker(&cluster, "worker-1").await;
    make_worker(&cluster, "worker-2").await;
    let serve =
        json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "busybox", "command": ["serve"]}]});
    let alone = json!({"metadata": {"name": "alone"}, "spec": serve});
    cluster.create(PODS, alone).await.unwrap();
    cluster
        .wait_for(&format!("{PODS}/alone"), "a Fargate pod", |pod| pod["status"]["phase"] == "Running")
        .await
        .unwrap();
    let mut daemon = template(&["serve"], "Always");
    daemon["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let sets = "/apis/apps/v1/namespaces/system/daemonsets";
    let spec = json!({"selector": selector(), "template": daemon});
    cluster.create(sets, json!({"metadata": {"name": "agent"}, "spec": spec})).await.unwrap();
    let (path, pods) = (format!("{sets}/agent"), "/api/v1/namespaces/system/pods");
    let bound = |list: &Value| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.len() == 2 && items.iter().all(|pod| pod["spec"]["nodeName"].is_string())
    };
    let found = cluster.wait_for(pods, "a pod on each worker", bound).await.unwrap();
    let mut nodes: Vec<&str> =
        found["items"].as_array().unwrap().iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["worker-1", "worker-2"]);
    make_ready(&cluster, pods).await;
    let set = cluster.wait_for(&path, "2 available", field("/status/numberAvailable", 2)).await.unwrap();
    assert_eq!(set["status"]["desiredNumberScheduled"], 2, "the Fargate node does not count: {set}");
    make_worker(&cluster, "worker-3").await;
    cluster.wait_for(&path, "the third", field("/status/currentNumberScheduled", 3)).await.unwrap();
    cluster.delete(&path).await.unwrap();
    let gone = |list: &Value| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    };
    cluster.wait_for(pods, "no daemon stays", gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_starts_jobs_and_remembers() {
    let (cluster, _agent) = cluster("cron").await;
    let crons = "/apis/batch/v1/namespaces/default/cronjobs";
    let jobs =
        json!({"metadata": {"labels": {"from": "cron"}}, "spec": {"template": template(&["exit", "0"], "Never")}});
    let spec = json!({"schedule": "@every 1s", "concurrencyPolicy": "Forbid", "jobTemplate": jobs});
    cluster.create(crons, json!({"metadata": {"name": "tick"}, "spec": spec})).await.unwrap();
    let path = format!("{crons}/tick");
    let succeeded = |cron: &Value| cron["status"]["lastSuccessfulTime"].is_string();
    let cron = cluster.wait_for(&path, "a success", succeeded).await.unwrap();
    assert!(cron["status"]["lastScheduleTime"].is_string(), "{cron}");
    cluster.patch(&path, json!({"spec": {"suspend": true}})).await.unwrap();
    let job = &cluster.list(JOBS).await[0];
    assert_eq!(
        (&job["metadata"]["labels"]["from"], &job["metadata"]["ownerReferences"][0]["name"]),
        (&json!("cron"), &json!("tick"))
    );
    cluster.delete(&path).await.unwrap();
    cluster.wait_for(JOBS, "no job", |found| names(found).is_empty()).await.unwrap();
    cluster.wait_for(PODS, "no pod", |found| names(found).is_empty()).await.unwrap();
}
