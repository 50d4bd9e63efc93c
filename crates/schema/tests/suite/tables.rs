//! Printed tables: cells by kind and the rules of the pod Status column.

use isopod_schema::tables::{self, IncludeObject, Options};
use serde_json::{Value, json};

use crate::kind;

fn options(include: IncludeObject) -> Options {
    Options { now: "2026-01-01T01:00:00Z".parse().expect("a time"), include, headers: true }
}

/// Cells of one object, joined.
fn cells(path: &str, mut object: Value) -> String {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let table = tables::render(kind(path), [&object], &options(IncludeObject::None));
    let cells = table["rows"][0]["cells"].as_array().expect("cells").clone();
    assert_eq!(table["columnDefinitions"].as_array().map(Vec::len), Some(cells.len()));
    let texts: Vec<String> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    texts.join(" | ")
}

#[test]
fn pod_status() {
    fn check(what: &str, spec: Value, status: Value, metadata: Value, expected: &str) {
        let line = cells("pods", json!({"metadata": metadata, "spec": spec, "status": status}));
        let shown = line.split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" ");
        assert_eq!(shown, expected, "{what}");
    }
    let one = json!({"containers": [{"name": "a"}]});
    let none = json!({});
    let running = |ready: bool| json!({"name": "a", "ready": ready, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "a", "restartCount": 2, "state": {"waiting": {"reason": reason}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}});
    let ended = |reason: &str, code: i32, signal: i32| json!({"name": "a", "restartCount": 0, "state": {"terminated": {"reason": reason, "exitCode": code, "signal": signal}}});
    check("no status yet", one.clone(), json!({"phase": "Pending"}), none.clone(), "0/1 Pending 0");
    check(
        "running",
        one.clone(),
        json!({"phase": "Running", "containerStatuses": [running(true)]}),
        none.clone(),
        "1/1 Running 0",
    );
    check(
        "backing off",
        one.clone(),
        json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
        none.clone(),
        "0/1 CrashLoopBackOff 2 (5m ago)",
    );
    check(
        "completed",
        one.clone(),
        json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0, 0)]}),
        none.clone(),
        "0/1 Completed 0",
    );
    check(
        "killed",
        one.clone(),
        json!({"phase": "Failed", "containerStatuses": [ended("OOMKilled", 137, 0)]}),
        none.clone(),
        "0/1 OOMKilled 0",
    );
    check(
        "no reason, signal",
        one.clone(),
        json!({"phase": "Failed", "containerStatuses": [ended("", 137, 9)]}),
        none.clone(),
        "0/1 Signal:9 0",
    );
    check(
        "no reason, code",
        one.clone(),
        json!({"phase": "Failed", "containerStatuses": [ended("", 3, 0)]}),
        none.clone(),
        "0/1 ExitCode:3 0",
    );
    check("evicted", one.clone(), json!({"phase": "Failed", "reason": "Evicted"}), none.clone(), "0/1 Evicted 0");
    check(
        "deleted",
        one.clone(),
        json!({"phase": "Running", "containerStatuses": [running(true)]}),
        json!({"deletionTimestamp": "x"}),
        "1/1 Terminating 0",
    );
    check(
        "deleted, ended",
        one.clone(),
        json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0, 0)]}),
        json!({"deletionTimestamp": "x"}),
        "0/1 Completed 0",
    );
    check(
        "gated",
        one.clone(),
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        none.clone(),
        "0/1 SchedulingGated 0",
    );
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let half =
        json!([ended("Completed", 0, 0), {"name": "b", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
    check(
        "one ended, not ready",
        two.clone(),
        json!({"phase": "Running", "containerStatuses": half}),
        none.clone(),
        "1/2 NotReady 0",
    );
    check(
        "one ended, ready",
        two,
        json!({"phase": "Running", "containerStatuses": half, "conditions": [{"type": "Ready", "status": "True"}]}),
        none.clone(),
        "1/2 Running 0",
    );
    let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    let init_status = |state: Value| json!([{"name": "i", "restartCount": 0, "state": state}]);
    check(
        "init starts",
        init.clone(),
        json!({"phase": "Pending", "initContainerStatuses": init_status(json!({"waiting": {"reason": "PodInitializing"}}))}),
        none.clone(),
        "0/2 Init:0/2 0",
    );
    check(
        "init fails",
        init.clone(),
        json!({"phase": "Pending", "initContainerStatuses": init_status(json!({"terminated": {"exitCode": 1, "reason": "Error"}}))}),
        none.clone(),
        "0/2 Init:Error 0",
    );
    check(
        "init pulls",
        init.clone(),
        json!({"phase": "Pending", "initContainerStatuses": init_status(json!({"waiting": {"reason": "ImagePullBackOff"}}))}),
        none.clone(),
        "0/2 Init:ImagePullBackOff 0",
    );
    let sidecar = json!([{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]);
    check(
        "sidecar runs",
        init,
        json!({"phase": "Running", "initContainerStatuses": sidecar, "containerStatuses": [running(true)]}),
        none,
        "2/2 Running 1",
    );
}

#[test]
fn cells_by_kind() {
    fn check(path: &str, object: Value, expected: &str) {
        assert_eq!(cells(path, object), expected, "{path}");
    }
    check("configmaps", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), "x | 2 | 60m");
    check("secrets", json!({"type": "Opaque", "data": {"a": ""}}), "x | Opaque | 1 | 60m");
    check("serviceaccounts", json!({}), "x | 60m");
    check("namespaces", json!({"status": {"phase": "Active"}}), "x | Active | 60m");
    check("limitranges", json!({}), "x | 2026-01-01T00:00:00Z");
    check(
        "nodes",
        json!({"metadata": {"labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}}),
        "x | Ready,SchedulingDisabled | a,b | 60m | v1.36.0 | 10.0.0.1 | <none> | Debian | <unknown> | <unknown>",
    );
    check(
        "services",
        json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        "x | NodePort | 10.0.0.1 | <none> | 80:30080/TCP,53/UDP | 60m | a=b",
    );
    check(
        "services",
        json!({"spec": {"type": "LoadBalancer"}}),
        "x | LoadBalancer | <none> | <pending> | <none> | 60m | <none>",
    );
    check(
        "apps/v1/deployments",
        json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
            "template": {"spec": {"containers": [{"name": "n", "image": "i"}, {"name": "m", "image": "j"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
        "x | 2/3 | 3 | 1 | 60m | n,m | i,j | a=b,c",
    );
    check(
        "apps/v1/replicasets",
        json!({"spec": {"replicas": 1}, "status": {"replicas": 1}}),
        "x | 1 | 1 | 0 | 60m |  |  | <none>",
    );
    check(
        "batch/v1/jobs",
        json!({"spec": {"parallelism": 2}, "status": {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:02:00Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
        "x | Complete | 0/1 of 2 | 2m | 60m |  |  | <none>",
    );
    check(
        "events",
        json!({"type": "Warning", "reason": "R", "message": "m\n", "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"},
            "source": {"component": "c", "host": "h"}, "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"}),
        "60s | Warning | R | pod/p | f | c, h | m | 60m | 3 | x",
    );
    check(
        "rbac.authorization.k8s.io/v1/rolebindings",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
        "x | Role/r | 60m |  |  | n/s",
    );
    check(
        "isopod.dev/v1alpha1/fargateprofiles",
        json!({"spec": {"selectors": [{"namespace": "a"}, {"namespace": "b"}]}, "status": {"phase": "ACTIVE"}}),
        "x | a,b | ACTIVE | 60m | ON_DEMAND | <none>",
    );
    check(
        "isopod.dev/v1alpha1/hosts",
        json!({"status": {"vmm": {"simulated": true, "backend": "simulated"}}}),
        "x | Unknown | simulated | <none> | <none> | 60m | <none> | <unknown> | <unknown>",
    );
    check(
        "isopod.dev/v1alpha1/usagerecords",
        json!({"spec": {"podNamespace": "n", "podName": "p", "vcpuMillis": 250, "memoryMib": 512, "startTime": "2026-01-01T00:30:00.000000Z"}}),
        "x | n | p | 0.25 | 512Mi | 30m | running | <none> | ON_DEMAND | <none> | <none>",
    );
    check(
        "autoscaling/v2/horizontalpodautoscalers",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}}),
        "x | Deployment/d | cpu: <unknown>/80% | 1 | 3 | 0 | 60m",
    );
    check(
        "autoscaling/v2/horizontalpodautoscalers",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3, "metrics": [
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"averageValue": "5"}}},
            {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"averageValue": "7"}}}]},
            "status": {"currentMetrics": [{"type": "External", "external": {"current": {"averageValue": "4"}}}]}}),
        "x | Deployment/d | 4/5 (avg), <unknown>/7 | <unset> | 3 | 0 | 60m",
    );
    check(
        "batch/v1/cronjobs",
        json!({"spec": {"schedule": "* * * * *", "suspend": false}}),
        "x | * * * * * | <none> | False | 0 | <none> | 60m |  |  | <none>",
    );
    check(
        "storage.k8s.io/v1/storageclasses",
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}),
        "x (default) | p | Delete | Immediate | false | 60m",
    );
    check(
        "storage.k8s.io/v1/csidrivers",
        json!({"spec": {"tokenRequests": [{"audience": "a"}, {"audience": "b"}]}}),
        "x | true | false | false | a,b | false | <none> | 60m",
    );
    check(
        "admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        json!({"spec": {"paramKind": {"apiVersion": "g/v1", "kind": "K"}, "validations": [{}]}}),
        "x | 1 | g/v1/K | 60m",
    );
    check(
        "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
        json!({"spec": {"policyName": "p", "paramRef": {"name": "n"}}}),
        "x | p | */n | 60m",
    );
    check(
        "endpoints",
        json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}]}]}),
        "x | 1.1.1.1:80,[fd00::1]:80,1.1.1.1:443 + 1 more... | 60m",
    );
    check("endpoints", json!({"subsets": [{"notReadyAddresses": [{"ip": "1.1.1.1"}]}]}), "x |  | 60m");
    check(
        "networking.k8s.io/v1/ipaddresses",
        json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
        "x | services/n/s",
    );
    check("resource.k8s.io/v1/resourceclaims", json!({"status": {"reservedFor": [{}]}}), "x | pending | 60m");
    check(
        "discovery.k8s.io/v1/endpointslices",
        json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1"]}, {"addresses": ["2"]}, {"addresses": ["3"]}, {"addresses": ["4"]}]}),
        "x | IPv4 | 80 | 1,2,3 + 1 more... | 60m",
    );
}

#[test]
fn rows_carry_what_was_asked_for() {
    let pod = json!({"kind": "Pod", "metadata": {"name": "x", "uid": "u"}, "status": {"phase": "Succeeded"}});
    let row = |include| tables::render(kind("pods"), [&pod], &options(include))["rows"][0].clone();
    assert_eq!(row(IncludeObject::None).get("object"), None);
    assert_eq!(
        row(IncludeObject::Metadata)["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x", "uid": "u"}})
    );
    assert_eq!(row(IncludeObject::Object)["object"], pod);
    assert_eq!(row(IncludeObject::None)["conditions"][0]["reason"], "Succeeded");
    let later = tables::render(kind("pods"), [&pod], &Options { headers: false, ..options(IncludeObject::None) });
    assert_eq!(later["columnDefinitions"], Value::Null);
}
