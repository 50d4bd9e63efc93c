//! What is said of which objects.

use serde_json::json;

use super::*;
use crate::table::Table;

/// An object of a kind of `GROUP/PLURAL`, and a part of each warning, in order.
fn check(resource: &str, object: Value, expected: &[&str]) {
    let (group, plural) = resource.split_once('/').unwrap();
    let kind = Table::builtin().resource(group, "v1", plural).unwrap();
    let found = of(kind, &object, None);
    assert_eq!(found.len(), expected.len(), "{resource} {object}: {found:#?}");
    for (found, part) in found.iter().zip(expected) {
        assert!(found.contains(part), "{resource} {object}: {found}");
    }
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn pods() {
    let table: [(Value, &[&str]); 16] = [
        (json!({"containers": [{"name": "c"}]}), &[]),
        (
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            &["spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14"],
        ),
        (
            json!({"topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]}),
            &[
                "topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated",
                "labelSelector: a null labelSelector",
            ],
        ),
        (
            json!({"volumes": [{"gitRepo": {}}]}),
            &["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
        ),
        (
            json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}),
            &["spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\""],
        ),
        (json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}), &["duplicate name \"a\""]),
        (json!({"imagePullSecrets": [{"name": ""}]}), &["spec.imagePullSecrets[0].name: invalid empty name \"\""]),
        (
            json!({"containers": [{"resources": {"limits": {"memory": "100m"}, "requests": {"memory": "1Gi"}}}]}),
            &[
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ],
        ),
        (
            json!({"initContainers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            &[
                "spec.initContainers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            ],
        ),
        (json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}), &[]),
        (
            json!({"containers": [{"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "protocol": "TCP"}]}]}),
            &["spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"],
        ),
        (
            json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80}]}]}),
            &["overlapping port definition"],
        ),
        (
            json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 1, "hostIP": "1.1.1.1"}, {"containerPort": 80, "hostPort": 1}]}]}),
            &["dangerously ambiguous port definition"],
        ),
        (
            json!({"containers": [{"ports": [{"containerPort": 80, "name": "web"}]}, {"ports": [{"containerPort": 81, "name": "web"}]}]}),
            &["duplicate port name \"web\" with spec.containers[0].ports[0], services and probes"],
        ),
        (json!({"terminationGracePeriodSeconds": -1}), &["must be >= 0; negative values are invalid"]),
        (
            json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}}}),
            &[
                "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null",
            ],
        ),
    ];
    for (spec, expected) in table {
        check("/pods", pod(spec.clone()), expected);
        let owner = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}});
        let found = of(Table::builtin().resource("apps", "v1", "daemonsets").unwrap(), &owner, None);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().all(|text| text.starts_with("spec.template.spec.")), "{found:?}");
    }
    let mut marked = pod(json!({}));
    marked["metadata"] = json!({"name": "a.b", "annotations": {
        "scheduler.alpha.kubernetes.io/critical-pod": "", "seccomp.security.alpha.kubernetes.io/pod": "x",
    }});
    check(
        "/pods",
        marked.clone(),
        &[
            "metadata.name: this is used in Pod names and hostnames",
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+",
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+",
        ],
    );
    assert_eq!(of(Table::builtin().resource("", "v1", "pods").unwrap(), &marked, Some(&marked)), [""; 0]);
}

#[test]
fn other_kinds() {
    let spec = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    let annotated = |key: &str| json!({"metadata": {"name": "x", "annotations": {key: "y"}}, "spec": {}});
    let table: [(&str, Value, &[&str]); 14] = [
        ("/services", spec(json!({"type": "ClusterIP", "sessionAffinity": "None"})), &[]),
        (
            "/services",
            spec(
                json!({"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["1.1.1.1"]}),
            ),
            &["spec.externalIPs is ignored for headless", "spec.SessionAffinity is ignored for headless"],
        ),
        (
            "/services",
            spec(json!({"type": "ClusterIP", "externalIPs": ["1.1.1.1"]})),
            &["spec.externalIPs is deprecated"],
        ),
        ("/services", spec(json!({"type": "NodePort", "externalName": "a"})), &["spec.externalName is ignored"]),
        ("/services", spec(json!({"trafficDistribution": "PreferClose"})), &["use \"PreferSameZone\""]),
        (
            "networking.k8s.io/ingresses",
            annotated("kubernetes.io/ingress.class"),
            &["please use 'spec.ingressClassName'"],
        ),
        ("/persistentvolumeclaims", annotated(STORAGE_CLASS), &["deprecated since v1.8; use \"storageClassName\""]),
        (
            "/persistentvolumeclaims",
            spec(json!({"resources": {"requests": {"storage": "1500m"}}})),
            &["spec.resources.requests[storage]: fractional byte value \"1500m\""],
        ),
        (
            "/persistentvolumes",
            spec(json!({"persistentVolumeReclaimPolicy": "Recycle", "glusterfs": {}})),
            &["The Recycle reclaim policy is deprecated", "spec.glusterfs: deprecated in v1.25"],
        ),
        ("apps/statefulsets", spec(json!({"revisionHistoryLimit": -1})), &["retains all historical revisions"]),
        (
            "batch/jobs",
            spec(json!({"completionMode": "Indexed", "completions": 200_000, "parallelism": 20_000})),
            &["spec: In Indexed Jobs with a number of completions higher than 10^5"],
        ),
        (
            "batch/cronjobs",
            json!({"metadata": {"name": "a.b"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": {"volumes": [{"rbd": {}}]}}}}}}),
            &[
                "a DNS label is recommended: [",
                "spec.jobTemplate.spec.template.spec.volumes[0].rbd: deprecated in v1.28",
            ],
        ),
        (
            "node.k8s.io/runtimeclasses",
            json!({"scheduling": {"nodeSelector": {"node-role.kubernetes.io/master": ""}}}),
            &["scheduling.nodeSelector: use \"node-role.kubernetes.io/control-plane\""],
        ),
        ("/configmaps", spec(json!({})), &[]),
    ];
    for (resource, object, expected) in table {
        check(resource, object, expected);
    }
}
