//! Quotas against objects.

use serde_json::json;

use super::*;

fn quota(hard: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

/// What became of the status, or the refusal.
fn check(quota: &Value, resource: &str, object: &Value, expected: Result<Value, &str>) {
    let found = wanted(quota, resource, object, None).and_then(|delta| charged(quota, &delta));
    let found = found.map(|quota| quota["status"]["used"].clone()).map_err(|denied| denied.to_string());
    assert_eq!(found, expected.map_err(str::to_owned), "{resource} {object}");
}

#[test]
fn there_is_room_or_there_is_not() {
    let c = |requests: Value| pod(json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}));
    let two = quota(json!({"pods": "3", "requests.cpu": "1"}), json!({"pods": "2", "requests.cpu": "600m"}));
    check(&two, "pods", &c(json!({"cpu": "400m"})), Ok(json!({"pods": "3", "requests.cpu": "1"})));
    check(
        &two,
        "pods",
        &c(json!({"cpu": "500m"})),
        Err("exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"),
    );
    check(&two, "pods", &c(json!({})), Err("failed quota: q: must specify requests.cpu for: c"));
    let full = quota(json!({"pods": "2"}), json!({"pods": "2"}));
    check(&full, "pods", &c(json!({})), Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"));
    check(&full, "configmaps", &json!({}), Ok(json!({"pods": "2"})));
    let memory = quota(json!({"memory": "1Gi", "limits.memory": "2Gi"}), json!({"memory": "0", "limits.memory": "0"}));
    let missing = "failed quota: q: must specify limits.memory for: c; memory for: c";
    check(&memory, "pods", &c(json!({"cpu": "1"})), Err(missing));
    let objects = quota(
        json!({"count/deployments.apps": "1", "services.nodeports": "2"}),
        json!({"count/deployments.apps": "1"}),
    );
    let more = "exceeded quota: q, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1";
    check(&objects, "deployments.apps", &json!({}), Err(more));
    let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}, {}]}});
    let ports =
        "exceeded quota: q, requested: services.nodeports=3, used: services.nodeports=0, limited: services.nodeports=2";
    check(&objects, "services", &service, Err(ports));
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
    let fast = quota(json!({"fast.storageclass.storage.k8s.io/requests.storage": "1Gi"}), json!({}));
    let name = "fast.storageclass.storage.k8s.io/requests.storage";
    let gold = format!("exceeded quota: q, requested: {name}=2Gi, used: {name}=0, limited: {name}=1Gi");
    check(&fast, "persistentvolumeclaims", &claim, Err(&gold));
}

#[test]
fn changes_pay_the_difference() {
    let service = |ty: &str| json!({"spec": {"type": ty, "ports": [{}]}});
    let quota =
        quota(json!({"services.nodeports": "1", "services": "5"}), json!({"services.nodeports": "1", "services": "1"}));
    let delta = |new: &str, old: &str| wanted(&quota, "services", &service(new), Some(&service(old))).unwrap();
    assert_eq!(delta("NodePort", "NodePort"), Amounts::new());
    assert!(charged(&quota, &delta("NodePort", "ClusterIP")).is_err());
    let freed = charged(&quota, &delta("ClusterIP", "NodePort")).unwrap();
    assert_eq!(freed["status"]["used"], json!({"services.nodeports": "0", "services": "1"}));
}

#[test]
fn scopes_choose() {
    let best_effort = pod(json!({"containers": [{"name": "c"}]}));
    let high = pod(json!({"priorityClassName": "high", "containers": [{"resources": {"limits": {"cpu": "1"}}}]}));
    let ending = pod(json!({"activeDeadlineSeconds": 5, "containers": [{}]}));
    let term =
        |operator: &str, values: Value| json!([{"scopeName": "PriorityClass", "operator": operator, "values": values}]);
    for (spec, expected) in [
        (json!({}), [true, true, true]),
        (json!({"scopes": ["BestEffort"]}), [true, false, true]),
        (json!({"scopes": ["NotBestEffort"]}), [false, true, false]),
        (json!({"scopes": ["Terminating"]}), [false, false, true]),
        (json!({"scopes": ["NotTerminating", "BestEffort"]}), [true, false, false]),
        (json!({"scopes": ["PriorityClass"]}), [false, true, false]),
        (json!({"scopeSelector": {"matchExpressions": term("In", json!(["high"]))}}), [false, true, false]),
        (json!({"scopeSelector": {"matchExpressions": term("NotIn", json!(["high"]))}}), [true, false, true]),
        (json!({"scopeSelector": {"matchExpressions": term("DoesNotExist", json!([]))}}), [true, false, true]),
    ] {
        let mut quota = quota(json!({"pods": "1"}), json!({}));
        quota["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let found = [&best_effort, &high, &ending].map(|pod| scopes::covers(&quota, "pods", pod));
        assert_eq!(found, expected, "{spec}");
        assert!(spec == json!({}) || !scopes::covers(&quota, "configmaps", &json!({})));
    }
}

#[test]
fn what_is_there_is_counted() {
    let ended =
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}, "status": {"phase": "Succeeded"}});
    let mut running = ended.clone();
    running["status"]["phase"] = "Running".into();
    let new = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "cpu": "3", "count/pods": "9", "secrets": "1"}}});
    assert!(!is_current(&new));
    let kinds: Vec<String> = resources(&new).into_iter().collect();
    assert_eq!(kinds, ["pods", "secrets"]);
    let counted = counted_again(&new, [("pods", &ended), ("pods", &running), ("pods", &running)]);
    assert_eq!(counted["status"]["used"], json!({"pods": "2", "cpu": "2", "count/pods": "3", "secrets": "0"}));
    assert!(is_current(&counted));
}
