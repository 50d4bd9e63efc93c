//! What the audit log says of requests.

use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt;
use isopod_apiserver::{ApiServer, Audit, Config, UserInfo};
use serde_json::{Value, json};

use crate::harness::{Cluster, config_map, pod};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [admin], verbs: [get], resources: [{group: '', resources: [secrets]}]}
- {level: Metadata, resources: [{group: '', resources: [secrets, pods]}], omitStages: [ResponseStarted]}
- {level: Request, resources: [{group: '', resources: [events]}]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], omitManagedFields: true}
- {level: Metadata, nonResourceURLs: ['/version']}
- {level: Metadata, users: [jane]}
";

async fn open(directory: &Path) -> Cluster {
    std::fs::write(directory.join("policy.yaml"), POLICY).unwrap();
    let audit = Audit::new(directory.join("policy.yaml"), directory.join("log/audit.log"));
    let cluster = Cluster::open_with(Config { audit: Some(audit), ..Config::default() }).await;
    cluster.create("serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await;
    cluster
}

/// Waits for so many events.
async fn events(directory: &Path, count: usize) -> Vec<Value> {
    let read = async {
        loop {
            let text = std::fs::read_to_string(directory.join("log/audit.log")).unwrap_or_default();
            let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let events = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the log says less");
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

#[tokio::test]
async fn requests_are_recorded_as_the_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = open(directory.path()).await;
    cluster.create("configmaps", "default", config_map("m")).await;
    cluster.create("secrets", "default", json!({"metadata": {"name": "s"}, "data": {"key": "c2VjcmV0"}})).await;
    cluster.ok("GET /api/v1/namespaces/default/secrets/s", Value::Null).await;
    let jane = cluster.user(UserInfo::new("jane", ["devs"]));
    jane.ask(
        "DELETE /api/v1/namespaces/default/services/x?dryRun=All",
        &[("user-agent", "test/1"), ("audit-id", "a1")],
        "",
    )
    .await;
    cluster.ask("GET /version", &[("impersonate-user", "joe")], "").await;
    let found = events(directory.path(), 4).await;
    let map = &found[0];
    assert_eq!(
        (&map["kind"], &map["apiVersion"], &map["level"], &map["stage"]),
        (&json!("Event"), &json!("audit.k8s.io/v1"), &json!("RequestResponse"), &json!("ResponseComplete"))
    );
    assert_eq!(
        (&map["requestObject"]["data"]["key"], &map["responseObject"]["data"]["key"]),
        (&json!("value"), &json!("value"))
    );
    assert_eq!(map["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(map["objectRef"], json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!((&map["responseStatus"]["code"], &map["verb"]), (&json!(201), &json!("create")));
    assert_eq!(map["requestReceivedTimestamp"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(map["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(map["annotations"]["authorization.k8s.io/reason"], "", "the masters may do everything");
    let secret = &found[1];
    assert_eq!(
        (&secret["level"], &secret["requestObject"], &secret["responseObject"]),
        (&json!("Metadata"), &Value::Null, &Value::Null)
    );
    let refused = &found[2];
    assert_eq!(
        (&refused["auditID"], &refused["userAgent"], &refused["user"]["username"]),
        (&json!("a1"), &json!("test/1"), &json!("jane"))
    );
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    assert_eq!(
        (&refused["annotations"]["authorization.k8s.io/decision"], &refused["requestURI"]),
        (&json!("forbid"), &json!("/api/v1/namespaces/default/services/x?dryRun=All"))
    );
    assert_eq!(
        (&found[3]["impersonatedUser"]["username"], &found[3]["user"]["username"]),
        (&json!("joe"), &json!("admin"))
    );
}

#[tokio::test]
async fn streams_are_recorded_when_they_begin_and_end() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = open(directory.path()).await;
    let watch = cluster.open("GET /api/v1/namespaces/default/configmaps?watch=1", &[], "").await;
    assert_eq!(events(directory.path(), 1).await[0]["stage"], "ResponseStarted");
    let mut body = watch.into_body();
    cluster.create("configmaps", "default", config_map("m")).await;
    body.frame().await.unwrap().unwrap();
    drop(body);
    let found = events(directory.path(), 3).await;
    assert_eq!(
        (&found[2]["stage"], &found[2]["verb"], &found[2]["auditID"]),
        (&json!("ResponseComplete"), &json!("watch"), &found[0]["auditID"])
    );
}

#[tokio::test]
async fn admission_notes_what_it_lets_pass() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = open(directory.path()).await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "restricted"}}});
    cluster.ok("PATCH /api/v1/namespaces/default", label).await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let validations =
        json!([{"expression": "true"}, {"expression": "object.metadata.name == 'q'", "message": "only q"}]);
    let notes = json!([
        {"key": "name", "valueExpression": "'the name is ' + object.metadata.name"},
        {"key": "none", "valueExpression": "object.metadata.name == 'p' ? dyn(null) : dyn('x')"},
    ]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules}, "validations": validations, "auditAnnotations": notes}});
    cluster.create("admissionregistration.k8s.io/v1/validatingadmissionpolicies", "", policy).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    cluster.create("admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", "", binding).await;
    cluster.create("pods", "default", pod("p")).await;
    let found = events(directory.path(), 1).await;
    let notes = &found[0]["annotations"];
    assert_eq!((&notes["p/name"], &notes["p/none"]), (&json!("the name is p"), &Value::Null));
    let violations = notes["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(
        violations.contains("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"),
        "{violations}"
    );
    let broken: Value =
        serde_json::from_str(notes["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap()).unwrap();
    assert_eq!(
        broken,
        json!([{"message": "only q", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Audit"]}])
    );
}

#[tokio::test]
async fn a_policy_that_is_none_is_refused_and_one_in_the_state_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit-policy.yaml");
    let config = Config { state_directory: Some(directory.path().to_owned()), ..Config::default() };
    std::fs::write(&path, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]").unwrap();
    let error = ApiServer::open(config.clone()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("audit-policy.yaml is unusable") && error.contains("Loud"), "{error}");
    std::fs::write(&path, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]").unwrap();
    let cluster = Cluster::in_directory(directory.path()).await;
    cluster.ok("GET /version", Value::Null).await;
    let log = directory.path().join("audit/audit.log");
    let written = async {
        while std::fs::metadata(&log).map_or(0, |found| found.len()) == 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
}
