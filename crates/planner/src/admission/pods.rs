//! What admission writes into a pod at its creation: service account, Fargate, priority, tolerations. The first follows
//! Kubernetes' ServiceAccount plugin, the third its Priority plugin, the fourth DefaultTolerationSeconds. The Fargate step
//! is what the mutating webhook of EKS does.

use std::sync::Arc;

use isopod_types::names::{
    CAPACITY_TYPE_ANNOTATION, COMPUTE_TYPE, COMPUTE_TYPE_EC2, DEFAULT_SCHEDULER, FARGATE_PRIORITY_CLASS,
    FARGATE_PROFILE_LABEL, FARGATE_SCHEDULER, ROOT_CA_CONFIG_MAP, SERVICE_ACCOUNT_MOUNT_PATH,
};
use isopod_types::own::{Cluster, FargateProfile};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Denied, Facts, Operation, Request, array, forbidden, items, object, text};
use crate::profiles::{Labels, Precedence, best_match};

/// Seconds after which the kubelet's default token is renewed at the latest; upstream's value.
const TOKEN_EXPIRATION_SECONDS: u32 = 3607;
/// Labels of nodes that say where they are, which their pods get.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
/// How the volumes of tokens are named.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// Seconds a pod stays on a node that is not ready or not reachable.
const DEFAULT_TOLERATION_SECONDS: u32 = 300;

/// The name of the service account a new pod will use.
pub fn service_account_name(pod: &Value) -> &str {
    match pod["spec"]["serviceAccountName"].as_str() {
        Some(name) if !name.is_empty() => name,
        _ => "default",
    }
}

/// Names the account, mounts its token, and takes over its pull secrets.
pub(super) fn add_service_account(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    // What shows a pod of a node's own making is not made into something else.
    if !request.creates("", "pods") || !pod["metadata"]["annotations"][super::nodes::MIRROR].is_null() {
        return Ok(false);
    }
    let name = service_account_name(pod).to_owned();
    let Some(account) = facts.get("serviceaccounts", request.namespace, &name) else {
        let namespace = request.namespace;
        let cause = format!("serviceaccount {name:?} not found");
        return forbidden(format!("error looking up service account {namespace}/{name}: {cause}"));
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
        add_token_volume(spec, request.suffix);
    }
    Ok(true)
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Mounts the token in every container that mounts nothing there. A token volume that is there already is used: webhooks
/// add containers, and admission looks again.
fn add_token_volume(spec: &mut Value, suffix: &str) {
    let is_token = |volume: &&Value| text(volume, "name").starts_with(TOKEN_VOLUME) && volume["projected"].is_object();
    let existing = items(spec, "volumes").iter().find(is_token).map(|volume| text(volume, "name").to_owned());
    let name = existing.clone().unwrap_or_else(|| format!("{TOKEN_VOLUME}{suffix}"));
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
    if let Some(volumes) = array(spec, "volumes").filter(|_| used && existing.is_none()) {
        volumes.push(token_volume(&name));
    }
}

/// Labels a pod that has a node, and the binding that gives it one, with where the node is, as PodTopologyLabels does.
pub(super) fn add_topology(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    let node = match request.subresource {
        "" if request.creates("", "pods") => text(&pod["spec"], "nodeName"),
        "binding" if matches!(text(&pod["target"], "kind"), "" | "Node") => text(&pod["target"], "name"),
        _ => "",
    };
    let Some(node) = Some(node).filter(|node| !node.is_empty()).and_then(|node| facts.get("nodes", "", node)) else {
        return Ok(false);
    };
    let place = TOPOLOGY.map(|label| (label, &node["metadata"]["labels"][label]));
    let place: Vec<_> = place.into_iter().filter(|(_, value)| value.is_string()).collect();
    for (label, value) in &place {
        object(object(pod, "metadata"), "labels")[*label] = (*value).clone();
    }
    Ok(!place.is_empty())
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

/// Objects of one of our own kinds. One that does not parse is skipped: it must not stop all pods.
fn own<T: for<'de> Deserialize<'de>>(facts: &dyn Facts, plural: &str) -> Vec<T> {
    let objects = facts.list(&format!("{plural}.isopod.dev"), "");
    objects.iter().filter_map(|object| T::deserialize(&**object).ok()).collect()
}

/// Marks pods that a profile matches.
pub(super) fn add_fargate(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    if !request.creates("", "pods") || opts_out(pod) {
        return Ok(false);
    }
    let profiles: Vec<FargateProfile> = own(facts, "fargateprofiles");
    if profiles.is_empty() {
        return Ok(false);
    }
    let cluster = own::<Cluster>(facts, "clusters").into_iter().next().unwrap_or_default();
    let precedence = Precedence::from_setting(&cluster.spec.fargate.profile_precedence);
    let found = best_match(&profiles, request.namespace, &pod_labels(pod), precedence);
    let Some(profile) = found else { return Ok(false) };
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
    Ok(true)
}

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

/// Resolves the class, or the default one, to a number.
pub(super) fn add_priority(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    if !request.creates("", "pods") {
        return Ok(false);
    }
    let spec = object(pod, "spec");
    let named = spec["priorityClassName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let class = match &named {
        Some(name) => match facts.get(CLASSES, "", name) {
            None => return forbidden(format!("no PriorityClass with name {name} was found")),
            found => found,
        },
        None => global_default(facts),
    };
    let (value, policy) = match &class {
        None => (0, DEFAULT_POLICY),
        Some(class) => {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
            (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].as_str().unwrap_or(DEFAULT_POLICY))
        }
    };
    if spec["priority"].as_i64().is_some_and(|given| given != value) {
        let text =
            "the integer value of priority must not be provided in pod spec; priority admission controller computes it";
        return forbidden(format!("{text} from the given PriorityClass name"));
    }
    spec["priority"] = json!(value);
    if spec.get("preemptionPolicy").is_none_or(Value::is_null) {
        spec["preemptionPolicy"] = json!(policy);
    }
    Ok(true)
}

/// Of several classes that call themselves the default, the one with the lowest value.
fn global_default(facts: &dyn Facts) -> Option<Arc<Value>> {
    let classes = facts.list(CLASSES, "").into_iter().filter(|class| class["globalDefault"] == true);
    classes.min_by_key(|class| class["value"].as_i64())
}

/// Pods stay for a while on a node that is in trouble.
pub(super) fn add_tolerations(pod: &mut Value, request: &Request<'_>, _: &dyn Facts) -> Result<bool, Denied> {
    if !request.is("", "pods") || request.operation == Operation::Delete {
        return Ok(false);
    }
    let Some(tolerations) = array(object(pod, "spec"), "tolerations") else { return Ok(false) };
    let before = tolerations.len();
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
    Ok(tolerations.len() > before)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cluster as TestCluster, request};
    use super::*;

    fn admit(namespace: &str, mut pod: Value) -> Result<Value, String> {
        let account =
            json!({"metadata": {"name": "default", "namespace": namespace}, "imagePullSecrets": [{"name": "reg"}]});
        let selectors = json!([{"namespace": "default"}]);
        let mut cluster = TestCluster::default().with("serviceaccounts", account).with(
            "fargateprofiles.isopod.dev",
            json!({"metadata": {"name": "fp-default"}, "spec": {"selectors": selectors}}),
        );
        for (name, value) in [("system-node-critical", 2_000_001_000), ("low", -5)] {
            cluster = cluster.with(CLASSES, json!({"metadata": {"name": name}, "value": value}));
        }
        let line = format!("CREATE pods {namespace}/p");
        super::super::mutate(&mut pod, &request(&line), &cluster).map(|_| pod).map_err(|denied| denied.to_string())
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn tolerations_come_back_when_a_pod_changes() {
        let tolerated = |line: &str, tolerations: Value| {
            let mut pod = pod(json!({"containers": [], "tolerations": tolerations}));
            let changed = add_tolerations(&mut pod, &request(line), &TestCluster::default()).unwrap();
            (changed, pod["spec"]["tolerations"].as_array().unwrap().len())
        };
        let own = json!({"key": "a", "operator": "Exists"});
        assert_eq!(tolerated("CREATE pods default/p", json!([])), (true, 2));
        assert_eq!(tolerated("UPDATE pods default/p", json!([own])), (true, 3));
        assert_eq!(tolerated("UPDATE pods default/p", json!([{"operator": "Exists"}])), (false, 1));
        assert_eq!(tolerated("UPDATE pods/status default/p", json!([own])), (false, 1));
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
    fn pods_learn_where_their_node_is() {
        let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z", "other": "x"}}});
        let facts = TestCluster::default().with("nodes", node);
        let table = [
            ("CREATE pods default/p", json!({"spec": {"nodeName": "n"}}), Some("z")),
            ("CREATE pods default/p", json!({"spec": {"nodeName": "gone"}}), None),
            ("CREATE pods default/p", json!({"spec": {}}), None),
            ("UPDATE pods default/p", json!({"spec": {"nodeName": "n"}}), None),
            ("CREATE pods/binding default/p", json!({"target": {"name": "n"}}), Some("z")),
            ("CREATE pods/binding default/p", json!({"target": {"kind": "Node", "name": "n"}}), Some("z")),
            ("CREATE pods/eviction default/p", json!({"target": {"name": "n"}}), None),
        ];
        for (line, mut object, zone) in table {
            let changed = add_topology(&mut object, &request(line), &facts).unwrap();
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["topology.kubernetes.io/zone"].as_str(), zone, "{line}");
            assert_eq!((changed, labels["other"].is_null()), (zone.is_some(), true), "{line}");
        }
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
