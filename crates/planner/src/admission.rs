//! What admission writes into a pod at its creation.
//!
//! Order: service account, Fargate, priority, tolerations; the first follows Kubernetes' ServiceAccount plugin, the third
//! its Priority plugin, the fourth DefaultTolerationSeconds. The Fargate step is what the mutating webhook of EKS does.

use std::collections::BTreeMap;

use isopod_types::names::{
    CAPACITY_TYPE_ANNOTATION, COMPUTE_TYPE, COMPUTE_TYPE_EC2, DEFAULT_SCHEDULER, FARGATE_PRIORITY_CLASS,
    FARGATE_PROFILE_LABEL, FARGATE_SCHEDULER, ROOT_CA_CONFIG_MAP, SERVICE_ACCOUNT_MOUNT_PATH,
};
use isopod_types::own::{FargateProfile, FargateSettings};
use serde_json::{Map, Value, json};

use crate::profiles::{Labels, Precedence, best_match};

/// Seconds after which the kubelet's default token is renewed at the latest; upstream's value.
const TOKEN_EXPIRATION_SECONDS: u32 = 3607;
/// Seconds a pod stays on a node that is not ready or not reachable.
const DEFAULT_TOLERATION_SECONDS: u32 = 300;

/// A priority class, as admission needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityClass {
    /// The number pods of this class get.
    pub value: i64,
    /// Whether pods without a class get this one.
    pub global_default: bool,
    /// `PreemptLowerPriority` or `Never`.
    pub preemption_policy: String,
}

/// What admission looks at besides the pod.
#[derive(Clone, Debug, Default)]
pub struct Inputs<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// The service account that the pod names, or `default`; none when there is no such account.
    pub service_account: Option<&'a Value>,
    /// Priority classes by name.
    pub priority_classes: BTreeMap<String, PriorityClass>,
    /// The cluster's Fargate profiles.
    pub profiles: &'a [FargateProfile],
    /// The cluster's Fargate switches.
    pub fargate: FargateSettings,
    /// Five random characters for the name of the token volume.
    pub volume_suffix: &'a str,
}

/// Why a pod may not be created. The API answers 403 Forbidden with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The text after `pods "x" is forbidden: `.
    pub message: String,
}

fn denied(message: impl Into<String>) -> Denied {
    Denied { message: message.into() }
}

/// Admits a new pod: fills in what the cluster decides, or says why the pod may not be.
pub fn pod_create(pod: &mut Value, inputs: &Inputs<'_>) -> Result<(), Denied> {
    add_service_account(pod, inputs)?;
    add_fargate(pod, inputs);
    add_priority(pod, inputs)?;
    add_tolerations(pod);
    Ok(())
}

/// The name of the service account a new pod will use.
pub fn service_account_name(pod: &Value) -> &str {
    match pod["spec"]["serviceAccountName"].as_str() {
        Some(name) if !name.is_empty() => name,
        _ => "default",
    }
}

fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.get(field).is_some_and(Value::is_object) {
        value[field] = Value::Object(Map::new());
    }
    &mut value[field]
}

fn array<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    if !value.get(field).is_some_and(Value::is_array) {
        value[field] = Value::Array(Vec::new());
    }
    value.get_mut(field).and_then(Value::as_array_mut)
}

fn add_service_account(pod: &mut Value, inputs: &Inputs<'_>) -> Result<(), Denied> {
    let name = service_account_name(pod).to_owned();
    let Some(account) = inputs.service_account else {
        let namespace = inputs.namespace;
        let cause = format!("serviceaccount {name:?} not found");
        return Err(denied(format!("error looking up service account {namespace}/{name}: {cause}")));
    };
    let spec = object(pod, "spec");
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    let has_secrets = spec["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
    if !has_secrets && account["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let automount =
        spec["automountServiceAccountToken"].as_bool().or(account["automountServiceAccountToken"].as_bool());
    if automount.unwrap_or(true) {
        add_token_volume(spec, inputs.volume_suffix);
    }
    Ok(())
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Mounts the token in every container that mounts nothing there.
fn add_token_volume(spec: &mut Value, suffix: &str) {
    let name = format!("kube-api-access-{suffix}");
    let mount = json!({"name": name, "readOnly": true, "mountPath": SERVICE_ACCOUNT_MOUNT_PATH});
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = array(container, "volumeMounts").into_iter();
            for mounts in mounts.filter(|m| !m.iter().any(|m| m["mountPath"] == SERVICE_ACCOUNT_MOUNT_PATH)) {
                mounts.push(mount.clone());
                used = true;
            }
        }
    }
    if let Some(volumes) = array(spec, "volumes").filter(|_| used) {
        volumes.push(token_volume(&name));
    }
}

fn pod_labels(pod: &Value) -> Labels {
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Whether the pod's author has decided against Fargate.
fn opts_out(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let scheduler = spec["schedulerName"].as_str().unwrap_or(DEFAULT_SCHEDULER);
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let from_daemon_set = owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "DaemonSet"));
    pod["metadata"]["annotations"][COMPUTE_TYPE] == COMPUTE_TYPE_EC2
        || pod["metadata"]["labels"][COMPUTE_TYPE] == COMPUTE_TYPE_EC2
        || spec["nodeName"].as_str().is_some_and(|node| !node.is_empty())
        || ![DEFAULT_SCHEDULER, FARGATE_SCHEDULER].contains(&scheduler)
        || from_daemon_set
}

fn add_fargate(pod: &mut Value, inputs: &Inputs<'_>) {
    if opts_out(pod) {
        return;
    }
    let precedence = Precedence::from_setting(&inputs.fargate.profile_precedence);
    let Some(profile) = best_match(inputs.profiles, inputs.namespace, &pod_labels(pod), precedence) else { return };
    object(object(pod, "metadata"), "labels")[FARGATE_PROFILE_LABEL] = json!(profile.metadata.name);
    if let Some(capacity_type) = &profile.spec.capacity_type {
        let annotations = object(object(pod, "metadata"), "annotations");
        if annotations.get(CAPACITY_TYPE_ANNOTATION).is_none() {
            annotations[CAPACITY_TYPE_ANNOTATION] = json!(capacity_type);
        }
    }
    let spec = object(pod, "spec");
    spec["schedulerName"] = json!(FARGATE_SCHEDULER);
    spec["priorityClassName"] = json!(FARGATE_PRIORITY_CLASS);
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("priority");
    }
}

fn add_priority(pod: &mut Value, inputs: &Inputs<'_>) -> Result<(), Denied> {
    let spec = object(pod, "spec");
    let named = spec["priorityClassName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let default =
        || inputs.priority_classes.iter().find(|(_, class)| class.global_default).map(|(name, _)| name.clone());
    let (value, policy) = match named.or_else(default) {
        None => (0, "PreemptLowerPriority".to_owned()),
        Some(name) => {
            let class = inputs.priority_classes.get(&name);
            let class = class.ok_or_else(|| denied(format!("no PriorityClass with name {name} was found")))?;
            spec["priorityClassName"] = json!(name);
            (class.value, class.preemption_policy.clone())
        }
    };
    if spec["priority"].as_i64().is_some_and(|given| given != value) {
        let text =
            "the integer value of priority must not be provided in pod spec; priority admission controller computes it";
        return Err(denied(format!("{text} from the given PriorityClass name")));
    }
    spec["priority"] = json!(value);
    if spec.get("preemptionPolicy").is_none_or(Value::is_null) {
        spec["preemptionPolicy"] = json!(if policy.is_empty() { "PreemptLowerPriority" } else { &policy });
    }
    Ok(())
}

fn add_tolerations(pod: &mut Value) {
    let Some(tolerations) = array(object(pod, "spec"), "tolerations") else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|t| {
            let about =
                t["key"] == key || t["key"].as_str().unwrap_or_default().is_empty() && t["operator"] == "Exists";
            about && ["", "NoExecute"].contains(&t["effect"].as_str().unwrap_or_default())
        });
        if !covered {
            let seconds = DEFAULT_TOLERATION_SECONDS;
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::ObjectMeta;
    use isopod_types::own::{FargateProfileSpec, ProfileSelector};

    fn profiles() -> Vec<FargateProfile> {
        let selectors = vec![ProfileSelector { namespace: "default".into(), ..Default::default() }];
        vec![FargateProfile {
            metadata: ObjectMeta { name: "fp-default".into(), ..Default::default() },
            spec: FargateProfileSpec { selectors, ..Default::default() },
        }]
    }

    fn admit(namespace: &str, mut pod: Value) -> Result<Value, String> {
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "reg"}]});
        let classes = [("system-node-critical", 2_000_001_000, false), ("low", -5, false)];
        let class = |(name, value, global_default): (&str, i64, bool)| {
            (name.to_owned(), PriorityClass { value, global_default, preemption_policy: "PreemptLowerPriority".into() })
        };
        let profiles = profiles();
        let inputs = Inputs {
            namespace,
            service_account: (pod["spec"]["serviceAccountName"] != "missing").then_some(&account),
            priority_classes: classes.map(class).into(),
            profiles: &profiles,
            volume_suffix: "abcde",
            ..Inputs::default()
        };
        pod_create(&mut pod, &inputs).map(|()| pod).map_err(|e| e.message)
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn a_matching_pod_gets_label_scheduler_and_priority() {
        let pod = admit("default", pod(json!({"containers": [{"name": "c"}]}))).unwrap();
        assert_eq!(pod["metadata"]["labels"][FARGATE_PROFILE_LABEL], "fp-default");
        assert_eq!(pod["spec"]["schedulerName"], "fargate-scheduler");
        assert_eq!(pod["spec"]["priorityClassName"], "system-node-critical");
        assert_eq!(pod["spec"]["priority"], 2_000_001_000i64);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn who_stays_away_from_fargate() {
        let with = |field: &str, value: Value| {
            let mut spec = json!({"containers": []});
            spec[field] = value;
            pod(spec)
        };
        let mut ec2 = pod(json!({}));
        ec2["metadata"]["annotations"] = json!({"eks.amazonaws.com/compute-type": "ec2"});
        let mut daemon = pod(json!({}));
        daemon["metadata"]["ownerReferences"] = json!([{"kind": "DaemonSet"}]);
        for (namespace, pod) in [
            ("other", pod(json!({}))),
            ("default", with("nodeName", json!("n"))),
            ("default", with("schedulerName", json!("mine"))),
            ("default", ec2),
            ("default", daemon),
        ] {
            let admitted = admit(namespace, pod).unwrap();
            assert!(admitted["metadata"]["labels"][FARGATE_PROFILE_LABEL].is_null(), "{admitted}");
            assert_eq!(admitted["spec"]["priority"], 0);
        }
    }

    #[test]
    fn the_token_is_mounted_once_per_container_unless_declined() {
        let mounted = |pod: &Value| pod["spec"]["containers"][0]["volumeMounts"].as_array().map_or(0, Vec::len);
        let admitted = admit("default", pod(json!({"containers": [{"name": "c"}]}))).unwrap();
        assert_eq!(mounted(&admitted), 1);
        assert_eq!(admitted["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(admitted["spec"]["imagePullSecrets"][0]["name"], "reg");
        let declined = json!({"automountServiceAccountToken": false, "containers": [{"name": "c"}]});
        assert_eq!(mounted(&admit("default", pod(declined)).unwrap()), 0);
        let own = json!({"containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": SERVICE_ACCOUNT_MOUNT_PATH}]}]});
        let admitted = admit("default", pod(own)).unwrap();
        assert_eq!((mounted(&admitted), admitted["spec"]["volumes"].as_array().unwrap().len()), (1, 0));
    }

    #[test]
    fn refusals_say_why() {
        for (spec, text) in [
            (json!({"serviceAccountName": "missing"}), "error looking up service account default/missing"),
            (json!({"schedulerName": "x", "priorityClassName": "nope"}), "no PriorityClass with name nope was found"),
            (
                json!({"schedulerName": "x", "priorityClassName": "low", "priority": 7}),
                "must not be provided in pod spec",
            ),
        ] {
            let error = admit("default", pod(spec)).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
