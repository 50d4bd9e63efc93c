//! Validation: what is accepted, what is refused and with which text.

use isopod_schema::{Status, defaults, validate};
use serde_json::{Value, json};

use crate::kind;

/// A sound object of a kind, with defaults.
pub(crate) fn sound(path: &str) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut object = match path {
        "pods" => json!({"spec": template["spec"]}),
        "apps/v1/deployments" | "apps/v1/replicasets" | "apps/v1/statefulsets" | "apps/v1/daemonsets" => {
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
        }
        "batch/v1/jobs" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"template": template}})
        }
        "services" => json!({"spec": {"ports": [{"port": 80}]}}),
        "configmaps" => json!({"data": {"a": "b"}}),
        "secrets" => json!({"data": {"a": "aGk="}}),
        "rbac.authorization.k8s.io/v1/rolebindings" => {
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]})
        }
        "rbac.authorization.k8s.io/v1/clusterroles" => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        "isopod.dev/v1alpha1/fargateprofiles" => json!({"spec": {"selectors": [{"namespace": "default"}]}}),
        "isopod.dev/v1alpha1/clusters" => json!({"spec": {"vpc": {"cidr": "10.0.0.0/16"}}}),
        "isopod.dev/v1alpha1/usagerecords" => json!({"spec": {"startTime": "2026-01-01T00:00:00.000000Z"}}),
        _ => json!({}),
    };
    let kind = kind(path);
    object["metadata"]["name"] = "x".into();
    if kind.namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    defaults::apply(kind, &mut object);
    object
}

pub(crate) fn texts(errors: &[validate::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Sets one value in a sound object and expects exactly these errors.
fn check(path: &str, pointer: &str, value: Value, expected: &[&str]) {
    let mut object = sound(path);
    set(&mut object, pointer, value);
    assert_eq!(texts(&validate::create(kind(path), &object)), expected, "{path} {pointer}");
}

/// Sets a value at a pointer, making what is on the way; null removes.
pub(crate) fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = parent.split('/').skip(1).fold(object, |at, part| match part.parse::<usize>() {
        Ok(index) => &mut at[index],
        Err(_) => &mut at[part],
    });
    match (value, name.parse::<usize>()) {
        (Value::Null, _) => drop(parent.as_object_mut().and_then(|map| map.shift_remove(name))),
        (value, Ok(index)) if parent.is_array() => match parent.as_array_mut() {
            Some(items) if index == items.len() => items.push(value),
            _ => parent[index] = value,
        },
        (value, _) => parent[name] = value,
    }
}

#[test]
fn sound_objects_are_accepted() {
    for path in [
        "pods",
        "services",
        "configmaps",
        "secrets",
        "namespaces",
        "nodes",
        "serviceaccounts",
        "apps/v1/deployments",
        "apps/v1/replicasets",
        "apps/v1/statefulsets",
        "apps/v1/daemonsets",
        "batch/v1/jobs",
        "coordination.k8s.io/v1/leases",
        "rbac.authorization.k8s.io/v1/rolebindings",
        "rbac.authorization.k8s.io/v1/clusterroles",
        "isopod.dev/v1alpha1/fargateprofiles",
        "isopod.dev/v1alpha1/clusters",
        "isopod.dev/v1alpha1/hosts",
        "isopod.dev/v1alpha1/usagerecords",
        "policy/v1/poddisruptionbudgets",
    ] {
        let object = sound(path);
        assert_eq!(texts(&validate::create(kind(path), &object)), Vec::<String>::new(), "{path}");
        assert_eq!(texts(&validate::update(kind(path), &object, &object)), Vec::<String>::new(), "{path}");
    }
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn metadata() {
    check("pods", "/metadata/name", json!("A"), &[&format!("metadata.name: Invalid value: \"A\": {SUBDOMAIN}")]);
    check("pods", "/metadata/name", json!(""), &["metadata.name: Required value: name or generateName is required"]);
    check("pods", "/metadata/namespace", Value::Null, &["metadata.namespace: Required value"]);
    check("nodes", "/metadata/namespace", json!("x"), &["metadata.namespace: Forbidden: not allowed on this type"]);
    check(
        "rbac.authorization.k8s.io/v1/clusterroles",
        "/metadata/name",
        json!("system:Node/x"),
        &["metadata.name: Invalid value: \"system:Node/x\": may not contain '/'"],
    );
    check("rbac.authorization.k8s.io/v1/clusterroles", "/metadata/name", json!("system:Node"), &[]);
    check(
        "pods",
        "/metadata/labels",
        json!({"a": "b c"}),
        &[
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    check(
        "pods",
        "/metadata/annotations",
        json!({"a": "x".repeat(300_000)}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    let owner =
        |controller: bool| json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": controller});
    check("pods", "/metadata/ownerReferences", json!([owner(true), owner(false)]), &[]);
    check(
        "pods",
        "/metadata/ownerReferences",
        json!([{"apiVersion": "v1", "kind": "K", "name": "n"}]),
        &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
    );
    assert_eq!(
        validate::create(kind("pods"), &{
            let mut pod = sound("pods");
            set(&mut pod, "/metadata/ownerReferences", json!([owner(true), owner(true)]));
            pod
        })
        .len(),
        1
    );
    check(
        "pods",
        "/metadata/finalizers",
        json!(["a/b/c"]),
        &[
            "metadata.finalizers: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ],
    );
}

#[test]
fn pods() {
    let check = |pointer: &str, value: Value, expected: &[&str]| check("pods", pointer, value, expected);
    let c = "/spec/containers/0";
    check("/spec/containers", json!([]), &["spec.containers: Required value"]);
    check(&format!("{c}/name"), Value::Null, &["spec.containers[0].name: Required value"]);
    check(
        &format!("{c}/image"),
        json!(" i"),
        &["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"],
    );
    check(&format!("{c}/image"), Value::Null, &["spec.containers[0].image: Required value"]);
    check(
        &format!("{c}/imagePullPolicy"),
        json!("Perhaps"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Perhaps\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        "/spec/containers/1",
        json!({"name": "c", "image": "i"}),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        "/spec/restartPolicy",
        json!("Sometimes"),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ],
    );
    check(
        &format!("{c}/ports"),
        json!([{"containerPort": 70000, "protocol": "TCP"}]),
        &["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
    check(
        &format!("{c}/ports"),
        json!([{"containerPort": 1, "protocol": "TCP", "hostPort": 9}, {"containerPort": 2, "protocol": "TCP", "hostPort": 9}]),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\""],
    );
    check(
        &format!("{c}/volumeMounts"),
        json!([{"name": "v", "mountPath": "/x"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
    check(
        &format!("{c}/env"),
        json!([{"name": "A=B"}]),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ],
    );
    check(
        &format!("{c}/resources"),
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    check(
        &format!("{c}/resources"),
        json!({"limits": {"cpu": "-1"}}),
        &["spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    check(
        &format!("{c}/resources"),
        json!({"limits": {"x.io/gpu": "1500m"}}),
        &["spec.containers[0].resources.limits[x.io/gpu]: Invalid value: \"1500m\": must be an integer"],
    );
    check(
        &format!("{c}/livenessProbe"),
        json!({}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check(
        &format!("{c}/livenessProbe"),
        json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}),
        &["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    );
    check(
        &format!("{c}/securityContext"),
        json!({"runAsUser": -1}),
        &[
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    check(
        "/spec/volumes",
        json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        "/spec/volumes",
        json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]),
        &[
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check(
        "/spec/tolerations",
        json!([{"key": "k", "operator": "Exists", "value": "v"}]),
        &[
            "spec.tolerations[0].operator: Invalid value: {\"key\":\"k\",\"operator\":\"Exists\",\"value\":\"v\"}: value must be empty when `operator` is 'Exists'",
        ],
    );
    check(
        "/spec/tolerations",
        json!([{"key": "k", "tolerationSeconds": 1, "effect": "NoSchedule"}]),
        &[
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    check(
        "/spec/dnsPolicy",
        json!("None"),
        &[
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ],
    );
    check(
        "/spec/activeDeadlineSeconds",
        json!(0),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        "/spec/ephemeralContainers",
        json!([{"name": "e", "image": "i"}]),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check(
        "/spec/securityContext",
        json!({"sysctls": [{"name": "a..b", "value": ""}]}),
        &[
            "spec.securityContext.sysctls[0].name: Invalid value: \"a..b\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ],
    );
}

#[test]
fn other_kinds() {
    let deployment = "apps/v1/deployments";
    check(deployment, "/spec/selector", Value::Null, &["spec.selector: Required value"]);
    check(
        deployment,
        "/spec/selector",
        json!({}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        deployment,
        "/spec/selector",
        json!({"matchLabels": {"a": "c"}}),
        &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"],
    );
    check(
        deployment,
        "/spec/template/spec/restartPolicy",
        json!("Never"),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        deployment,
        "/spec/replicas",
        json!(-1),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        deployment,
        "/spec/strategy/rollingUpdate",
        json!({"maxUnavailable": 0, "maxSurge": "0%"}),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    );
    check(
        deployment,
        "/spec/strategy/rollingUpdate",
        json!({"maxUnavailable": "101%"}),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    check(
        deployment,
        "/spec/strategy/type",
        json!("Recreate"),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        deployment,
        "/spec/progressDeadlineSeconds",
        json!(0),
        &["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
    );
    check(
        "batch/v1/jobs",
        "/spec/template/spec/restartPolicy",
        json!("Always"),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"OnFailure\"",
        ],
    );
    check("services", "/spec/ports", json!([]), &["spec.ports: Required value"]);
    check(
        "services",
        "/spec/ports",
        json!([{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}]),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        "services",
        "/spec/ports/0/nodePort",
        json!(30000),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check("services", "/metadata/name", json!("1a"), &[]);
    check(
        "services",
        "/metadata/name",
        json!("a.b"),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        "configmaps",
        "/data",
        json!({"a/b": ""}),
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        "configmaps",
        "/data",
        json!({"a": "x".repeat(1_048_577)}),
        &[": Too long: may not be more than 1048576 bytes"],
    );
    check(
        "secrets",
        "/type",
        json!("kubernetes.io/tls"),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check(
        "nodes",
        "/spec/taints",
        json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]),
        &["metadata.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\"}"],
    );
    check(
        "rbac.authorization.k8s.io/v1/clusterroles",
        "/rules/0/verbs",
        Value::Null,
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        "rbac.authorization.k8s.io/v1/rolebindings",
        "/roleRef/kind",
        json!("Pod"),
        &["roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\""],
    );
    check(
        "isopod.dev/v1alpha1/fargateprofiles",
        "/spec/selectors",
        json!([]),
        &["spec.selectors: Required value: at least one selector is required"],
    );
    check(
        "isopod.dev/v1alpha1/fargateprofiles",
        "/spec/selectors/0",
        json!({}),
        &["spec.selectors[0].namespace: Required value"],
    );
    check(
        "isopod.dev/v1alpha1/fargateprofiles",
        "/spec/capacityType",
        json!("SPOT"),
        &["spec.capacityType: Unsupported value: \"SPOT\": supported values: \"FARGATE_SPOT\", \"ON_DEMAND\""],
    );
    check(
        "isopod.dev/v1alpha1/clusters",
        "/spec/vpc/cidr",
        json!("10.0.0.0/33"),
        &["spec.vpc.cidr: Invalid value: \"10.0.0.0/33\": must be an IPv4 network, such as 192.168.0.0/16"],
    );
    check(
        "isopod.dev/v1alpha1/usagerecords",
        "/spec/endTime",
        json!("2025-01-01T00:00:00.000000Z"),
        &["spec.endTime: Invalid value: \"2025-01-01T00:00:00.000000Z\": must not be before startTime"],
    );
}

#[test]
fn errors_become_a_status() {
    let mut object = sound("apps/v1/deployments");
    set(&mut object, "/spec/selector", Value::Null);
    set(&mut object, "/spec/replicas", json!(-1));
    let kind = kind("apps/v1/deployments");
    let status = Status::invalid(kind, "x", &validate::create(kind, &object));
    assert_eq!(
        status.to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Deployment.apps \"x\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be greater than or equal to 0]",
            "reason": "Invalid", "details": {"name": "x", "group": "apps", "kind": "Deployment", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"},
                {"reason": "FieldValueInvalid", "message": "Invalid value: -1: must be greater than or equal to 0", "field": "spec.replicas"}]},
            "code": 422})
    );
}

#[test]
fn pods_of_stateful_sets_mount_their_claims() {
    let check = |volumes: Value, mount: &str, expected: &[&str]| {
        let mut set = sound("apps/v1/statefulsets");
        set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        let pod = &mut set["spec"]["template"]["spec"];
        pod["volumes"] = volumes;
        pod["containers"][0]["volumeMounts"] = json!([{"name": mount, "mountPath": "/m"}]);
        assert_eq!(texts(&validate::create(kind("apps/v1/statefulsets"), &set)), expected);
    };
    check(json!([]), "data", &[]);
    check(json!([{"name": "own", "emptyDir": {}}]), "own", &[]);
    check(json!([{"name": "data", "emptyDir": {}}]), "data", &[]);
    check(json!([]), "other", &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\""]);
}
