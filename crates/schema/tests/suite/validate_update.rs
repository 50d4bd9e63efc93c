//! Validation of changes: what may change, what may not, and whether the generation goes up.

use isopod_schema::validate;
use serde_json::{Value, json};

use crate::kind;
use crate::validate::{set, sound, texts};

#[test]
fn updates() {
    fn check(path: &str, pointer: &str, old: Value, new: Value, expected: &[&str]) {
        let (mut before, mut after) = (sound(path), sound(path));
        set(&mut before, pointer, old);
        set(&mut after, pointer, new);
        assert_eq!(texts(&validate::update(kind(path), &after, &before)), expected, "{path} {pointer}");
    }
    check("pods", "/spec/containers/0/image", json!("a"), json!("b"), &[]);
    check("pods", "/metadata/labels", Value::Null, json!({"a": "b"}), &[]);
    check("pods", "/spec/activeDeadlineSeconds", json!(5), json!(3), &[]);
    check(
        "pods",
        "/spec/activeDeadlineSeconds",
        json!(3),
        json!(5),
        &["spec.activeDeadlineSeconds: Invalid value: 5: must be less than or equal to previous value"],
    );
    check("pods", "/spec/tolerations", Value::Null, json!([{"operator": "Exists"}]), &[]);
    check(
        "pods",
        "/spec/tolerations",
        json!([{"operator": "Exists"}]),
        Value::Null,
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    check("pods", "/spec/schedulingGates", json!([{"name": "a"}]), Value::Null, &[]);
    check(
        "pods",
        "/spec/schedulingGates",
        Value::Null,
        json!([{"name": "a"}]),
        &["spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"],
    );
    check(
        "pods",
        "/spec/hostNetwork",
        Value::Null,
        json!(true),
        &[
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ],
    );
    check("pods", "/metadata/uid", json!("a"), json!("b"), &["metadata.uid: Invalid value: \"b\": field is immutable"]);
    check("apps/v1/deployments", "/spec/replicas", json!(1), json!(2), &[]);
    check(
        "apps/v1/deployments",
        "/spec/selector",
        json!({"matchLabels": {"a": "b"}}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
        &[
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Exists\"}]}: field is immutable",
        ],
    );
    check("secrets", "/type", json!("Opaque"), json!("x"), &["type: Invalid value: \"x\": field is immutable"]);
    check("configmaps", "/immutable", json!(true), json!(true), &[]);
    check(
        "configmaps",
        "/immutable",
        json!(true),
        Value::Null,
        &["immutable: Forbidden: field is immutable when `immutable` is set"],
    );
    check(
        "services",
        "/spec/clusterIP",
        json!("10.0.0.1"),
        json!("10.0.0.2"),
        &["spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set"],
    );
    check(
        "rbac.authorization.k8s.io/v1/rolebindings",
        "/roleRef/name",
        json!("a"),
        json!("b"),
        &[
            "roleRef: Invalid value: {\"kind\":\"Role\",\"name\":\"b\",\"apiGroup\":\"rbac.authorization.k8s.io\"}: cannot change roleRef",
        ],
    );
    check("nodes", "/spec/providerID", Value::Null, json!("a"), &[]);
    check(
        "nodes",
        "/spec/providerID",
        json!("a"),
        json!("b"),
        &["spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid"],
    );
}

#[test]
fn gated_pods_may_add_to_their_node_selector() {
    fn check(old: Value, new: Value, expected: usize) {
        let (mut before, mut after) = (sound("pods"), sound("pods"));
        set(&mut before, "/spec/schedulingGates", json!([{"name": "g"}]));
        set(&mut after, "/spec/schedulingGates", json!([{"name": "g"}]));
        set(&mut before, "/spec/nodeSelector", old);
        set(&mut after, "/spec/nodeSelector", new);
        assert_eq!(validate::update(kind("pods"), &after, &before).len(), expected);
    }
    check(json!({"a": "1"}), json!({"a": "1", "b": "2"}), 0);
    check(json!({"a": "1"}), json!({"a": "2"}), 1);
    check(json!({"a": "1"}), Value::Null, 1);
}

#[test]
fn finalizers_may_not_come_while_deleting() {
    let mut old = sound("pods");
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["a.io/b"]);
    assert_eq!(
        texts(&validate::update(kind("pods"), &new, &old)),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.io/b\"}"
        ]
    );
}

#[test]
fn ended_containers_stay_ended() {
    fn check(policy: &str, code: i32, allowed: bool) {
        let mut old = sound("pods");
        old["spec"]["restartPolicy"] = policy.into();
        let mut new = old.clone();
        old["status"] = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
        new["status"] = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        assert_eq!(validate::update_status(kind("pods"), &new, &old).is_empty(), allowed, "{policy} {code}");
    }
    check("Always", 0, true);
    check("Never", 1, false);
    check("OnFailure", 1, true);
    check("OnFailure", 0, false);
}

#[test]
fn generation() {
    fn check(pointer: &str, expected: bool) {
        let old = sound("pods");
        let mut new = old.clone();
        set(&mut new, pointer, json!({"a": 1}));
        assert_eq!(validate::generation_changed(kind("pods"), &new, &old), expected, "{pointer}");
    }
    check("/spec/nodeSelector", true);
    check("/metadata/labels", false);
    check("/status", false);
    check("/data", true);
}

#[test]
fn ephemeral_containers_are_only_added() {
    fn check(old: Value, new: Value, expected: &[&str]) {
        let (mut before, mut after) = (sound("pods"), sound("pods"));
        set(&mut before, "/spec/ephemeralContainers", old);
        set(&mut after, "/spec/ephemeralContainers", new.clone());
        isopod_schema::defaults::apply(kind("pods"), &mut before);
        isopod_schema::defaults::apply(kind("pods"), &mut after);
        assert_eq!(texts(&validate::update_ephemeral_containers(kind("pods"), &after, &before)), expected, "{new}");
    }
    let debugger = |more: Value| {
        let mut container = json!({"name": "d", "image": "i"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([container])
    };
    let plain = debugger(json!({}));
    check(Value::Null, plain.clone(), &[]);
    check(plain.clone(), json!([plain[0], {"name": "e", "image": "i"}]), &[]);
    check(Value::Null, debugger(json!({"targetContainerName": "c", "tty": true, "resources": {}, "ports": []})), &[]);
    let list = "spec.ephemeralContainers: Forbidden: existing ephemeral containers";
    check(plain.clone(), Value::Null, &[&format!("{list} \"d\" may not be removed\n")]);
    check(plain.clone(), debugger(json!({"image": "j"})), &[&format!("{list} \"d\" may not be changed\n")]);
    let one = "spec.ephemeralContainers[0]";
    check(
        Value::Null,
        debugger(json!({"targetContainerName": "x"})),
        &[&format!("{one}.targetContainerName: Not found: \"x\"")],
    );
    check(Value::Null, debugger(json!({"name": "c"})), &[&format!("{one}.name: Duplicate value: \"c\"")]);
    let mount = json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]);
    check(
        Value::Null,
        debugger(json!({"volumeMounts": mount})),
        &[
            &format!("{one}.volumeMounts[0].name: Not found: \"v\""),
            &format!("{one}.volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container"),
        ],
    );
    let fields = [
        ("ports", json!([{"containerPort": 1}])),
        ("resources", json!({"limits": {"cpu": "1"}})),
        ("livenessProbe", json!({"exec": {"command": ["x"]}})),
        ("startupProbe", json!({"exec": {"command": ["x"]}})),
        ("lifecycle", json!({"preStop": {"exec": {"command": ["x"]}}})),
        ("restartPolicy", json!("Always")),
        ("resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
    ];
    for (field, value) in fields {
        let text = format!("{one}.{field}: Forbidden: cannot be set for an Ephemeral Container");
        check(Value::Null, debugger(json!({field: value})), &[&text]);
    }
    let mut mirror = sound("pods");
    set(&mut mirror, "/metadata/annotations", json!({"kubernetes.io/config.mirror": "x"}));
    let errors = validate::update_ephemeral_containers(kind("pods"), &mirror, &mirror);
    assert_eq!(texts(&errors), [": Forbidden: static pods do not support ephemeral containers"]);
}

#[test]
fn only_amounts_of_cpu_and_memory_are_resized() {
    fn pod(policy: &str, containers: Value, initial: Value) -> Value {
        let mut pod = sound("pods");
        set(&mut pod, "/spec/containers", containers);
        set(&mut pod, "/spec/initContainers", initial);
        set(&mut pod, "/spec/restartPolicy", json!(policy));
        isopod_schema::defaults::apply(kind("pods"), &mut pod);
        pod
    }
    fn check(old: &Value, new: &Value, expected: &[&str]) {
        assert_eq!(texts(&validate::resize(kind("pods"), new, old)), expected, "{new}");
    }
    let one = |name: &str, cpu: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}});
    let plain = |cpu: &str| pod("Always", json!([one("c", cpu)]), Value::Null);
    check(&plain("1"), &plain("2"), &[]);
    check(&plain("1"), &plain("500m"), &[]);
    let two = pod("Always", json!([one("c", "1"), one("d", "1")]), Value::Null);
    check(&plain("1"), &two, &["spec: Forbidden: containers may not be added or removed on resize"]);
    let renamed = pod("Always", json!([one("d", "1")]), Value::Null);
    let why = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
    check(&plain("1"), &renamed, &[why]);
    let mut none = plain("1");
    set(&mut none, "/spec/containers/0/resources", json!({"limits": {"cpu": "1"}}));
    let why = "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed";
    check(&plain("1"), &none, &[why]);
    let best = pod("Always", json!([{"name": "c", "image": "i"}]), Value::Null);
    let why = "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing";
    check(&best, &plain("1"), &[why]);
    let with_init = |cpu: &str, sidecar: bool| {
        let mut init = one("i", cpu);
        if sidecar {
            init["restartPolicy"] = "Always".into();
        }
        pod("Always", json!([one("c", "1")]), json!([init]))
    };
    check(&with_init("1", true), &with_init("2", true), &[]);
    let why = "spec: Forbidden: resources for non-sidecar init containers are immutable";
    check(&with_init("1", false), &with_init("2", false), &[why]);
    let mut whole = plain("1");
    set(&mut whole, "/spec/resources", json!({"requests": {"cpu": "2"}}));
    check(&whole, &whole, &[": Forbidden: pods with pod-level resources cannot be resized"]);
    let mut running = plain("1");
    running["status"] = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    check(&running, &plain("2"), &["spec: Forbidden: Pod running on node without support for resize"]);
    running["status"]["containerStatuses"][0]["resources"] = json!({});
    check(&running, &plain("2"), &[]);
    let policy = |restarts: &str, resource: &str, policy: &str| {
        let mut container = one("c", "1");
        container["resizePolicy"] = json!([{"resourceName": resource, "restartPolicy": policy}]);
        pod(restarts, json!([container]), Value::Null)
    };
    check(&plain("1"), &policy("Always", "cpu", "RestartContainer"), &[]);
    let lead = "spec.containers[0].resizePolicy";
    let unknown = policy("Always", "disk", "NotRequired");
    let text = format!("{lead}: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"");
    assert_eq!(texts(&validate::create(kind("pods"), &unknown)), [text]);
    let never = policy("Never", "cpu", "RestartContainer");
    let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
    let text = format!("{lead}: Invalid value: \"RestartContainer\": {why}");
    assert_eq!(texts(&validate::create(kind("pods"), &never)), [text]);
}
