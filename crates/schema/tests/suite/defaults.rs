//! Defaults, one document per rule.

use isopod_schema::defaults;
use serde_json::{Value, json};

use crate::kind;

/// Applies the defaults twice: the second time must change nothing.
fn defaulted(path: &str, mut object: Value) -> Value {
    defaults::apply(kind(path), &mut object);
    let once = object.clone();
    defaults::apply(kind(path), &mut object);
    assert_eq!(object, once, "not idempotent");
    object
}

#[test]
fn pods() {
    fn check(spec: Value, pointer: &str, expected: Value) {
        let object = defaulted("pods", json!({"spec": spec}));
        assert_eq!(object.pointer(pointer).unwrap_or(&Value::Null), &expected, "{pointer}");
    }
    let image = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    for (name, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
    ] {
        check(image(name), "/spec/containers/0/imagePullPolicy", json!(policy));
    }
    check(image("x"), "/spec/restartPolicy", json!("Always"));
    check(image("x"), "/spec/terminationGracePeriodSeconds", json!(30));
    check(image("x"), "/spec/enableServiceLinks", json!(true));
    check(image("x"), "/spec/securityContext", json!({}));
    check(image("x"), "/spec/containers/0/terminationMessagePath", json!("/dev/termination-log"));
    check(json!({"terminationGracePeriodSeconds": 0}), "/spec/terminationGracePeriodSeconds", json!(0));
    check(json!({"volumes": [{"name": "v"}]}), "/spec/volumes/0/emptyDir", json!({}));
    check(json!({"volumes": [{"name": "v", "secret": {}}]}), "/spec/volumes/0/secret/defaultMode", json!(420));
    check(json!({"volumes": [{"name": "v", "secret": {}}]}), "/spec/volumes/0/emptyDir", Value::Null);
    let probe = json!({"containers": [{"livenessProbe": {"httpGet": {"port": 80}}, "ports": [{"containerPort": 80}]}]});
    check(
        probe.clone(),
        "/spec/containers/0/livenessProbe/httpGet",
        json!({"port": 80, "path": "/", "scheme": "HTTP"}),
    );
    check(probe.clone(), "/spec/containers/0/livenessProbe/failureThreshold", json!(3));
    check(probe, "/spec/containers/0/ports/0/protocol", json!("TCP"));
    let limits =
        json!({"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100u"}}}]});
    check(limits, "/spec/containers/0/resources/requests", json!({"cpu": "1m", "memory": "1Gi"}));
    let host = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]});
    check(host, "/spec/containers/0/ports/0/hostPort", json!(80));
}

/// The same but for what Go writes although it is empty.
fn is_but_for_empty(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let empty = Value::Null;
            expected.keys().all(|key| found.contains_key(key))
                && found.iter().all(|(key, value)| is_but_for_empty(value, expected.get(key).unwrap_or(&empty)))
        }
        (Value::Object(found), Value::Null) => found.values().all(|value| is_but_for_empty(value, &Value::Null)),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| is_but_for_empty(a, b))
        }
        (found, Value::Null) => [Value::Null, "".into(), 0.into(), false.into()].contains(found),
        (found, expected) => found == expected,
    }
}

#[test]
fn what_go_writes_is_there() {
    fn check(path: &str, object: Value, expected: Value) {
        assert_eq!(defaulted(path, object), expected, "{path}");
    }
    check(
        "policy/v1/poddisruptionbudgets",
        json!({}),
        json!({"metadata": {}, "spec": {}, "status":
        {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}}),
    );
    check(
        "networking.k8s.io/v1/ingresses",
        json!({}),
        json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
    );
    check(
        "networking.k8s.io/v1/networkpolicies",
        json!({}),
        json!({"metadata": {}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
    );
    check("rbac.authorization.k8s.io/v1/roles", json!({"rules": null}), json!({"rules": null, "metadata": {}}));
    check(
        "scheduling.k8s.io/v1/priorityclasses",
        json!({}),
        json!({"metadata": {}, "value": 0, "preemptionPolicy": "PreemptLowerPriority"}),
    );
    check(
        "events",
        json!({}),
        json!({"metadata": {}, "involvedObject": {}, "source": {}, "firstTimestamp": null,
        "lastTimestamp": null, "eventTime": null, "reportingComponent": "", "reportingInstance": ""}),
    );
}

#[test]
fn what_is_switched_off_is_dropped_and_what_says_the_same_is_said_twice() {
    let lease = defaulted("coordination.k8s.io/v1/leases", json!({"spec": {"strategy": "x", "holderIdentity": "h"}}));
    assert_eq!(lease["spec"], json!({"holderIdentity": "h"}));
    let claim = |spec: Value| defaulted("persistentvolumeclaims", json!({"spec": spec}))["spec"].clone();
    let source = json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "x"});
    assert_eq!(claim(json!({"dataSource": source}))["dataSourceRef"], source);
    assert_eq!(claim(json!({"dataSourceRef": source}))["dataSource"], source);
    assert_eq!(claim(json!({"dataSource": {"kind": "Pod", "name": "x"}})).get("dataSource"), None);
}

#[test]
fn defaults_of_jobs_are_not_those_of_templates_for_jobs() {
    let job = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}}});
    let found = defaulted("batch/v1/cronjobs", job);
    let spec = &found["spec"]["jobTemplate"]["spec"];
    assert_eq!(spec.as_object().map(|spec| spec.len()), Some(1), "{spec}");
    assert_eq!(found["spec"]["concurrencyPolicy"], "Allow");
    let level = json!({"spec": {"matchingPrecedence": 0}});
    let found = defaulted("flowcontrol.apiserver.k8s.io/v1/flowschemas", level);
    assert_eq!(found["spec"]["matchingPrecedence"], 1000);
    let node = defaulted("nodes", json!({"spec": {"podCIDR": "10.0.0.0/24"}}));
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
}

#[test]
fn other_kinds() {
    fn check(path: &str, object: Value, expected: Value) {
        let found = defaulted(path, object);
        assert!(is_but_for_empty(&found, &expected), "{found:#} is not {expected:#}");
    }
    check(
        "apps/v1/deployments",
        json!({"spec": {"template": {"spec": {"containers": []}}}}),
        json!({"spec": {
            "template": {"spec": {"containers": [], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {}}},
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}}}),
    );
    check(
        "services",
        json!({"spec": {"ports": [{"port": 80}]}}),
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP",
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}}),
    );
    check(
        "services",
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}}),
    );
    check(
        "namespaces",
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "other"}}}),
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}}, "status": {"phase": "Active"}}),
    );
    check(
        "secrets",
        json!({"stringData": {"a": "hi"}, "data": {"a": "", "b": "aGk="}}),
        json!({"data": {"a": "aGk=", "b": "aGk="}, "type": "Opaque"}),
    );
    check(
        "batch/v1/jobs",
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}}},
            "completionMode": "NonIndexed", "suspend": false, "manualSelector": false, "completions": 1, "parallelism": 1,
            "backoffLimit": 6, "podReplacementPolicy": "TerminatingOrFailed"}}),
    );
    check(
        "rbac.authorization.k8s.io/v1/rolebindings",
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": ""}}),
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}}),
    );
    check(
        "rbac.authorization.k8s.io/v1/rolebindings",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [
            {"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s"}]}),
    );
    check(
        "nodes",
        json!({"status": {"capacity": {"cpu": "2"}}}),
        json!({"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}}),
    );
}
