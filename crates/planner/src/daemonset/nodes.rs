//! Which nodes take a DaemonSet's pod, and the pod for a node.

use isopod_types::daemonset::DaemonSet;
use isopod_types::names::{COMPUTE_TYPE, COMPUTE_TYPE_FARGATE};
use isopod_types::node::Node;
use isopod_types::pod::{Pod, PodSpec};
use isopod_types::scheduling::Toleration;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GENERATION_ANNOTATION, GENERATION_LABEL};
use crate::revisions::CONTROLLER_REVISION_HASH;
use crate::scheduler::affinity::{NODE_NAME_FIELD, named_nodes, node_allowed};
use crate::scheduler::taints::{repelling, untolerated};
use crate::template::NewPod;

/// Troubles of a node that a daemon outlasts, and the effect they have.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for daemons that use the node's own network.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
const NO_EXECUTE: &str = "NoExecute";

/// What a node has to do with a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It takes no pod.
    No,
    /// A pod that is there stays, none comes.
    Stays,
    /// It is to have a pod.
    Yes,
}

/// Whether a node can have daemons at all: one that was made for a single pod cannot.
pub fn takes_daemons(node: &Node) -> bool {
    node.metadata.labels.get(COMPUTE_TYPE).map(String::as_str) != Some(COMPUTE_TYPE_FARGATE)
}

/// Whether a change of a node may change what DaemonSets do there.
pub fn concerns(before: Option<&Node>, after: Option<&Node>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            before.metadata.labels != after.metadata.labels || before.spec.taints != after.spec.taints
        }
        (one, other) => one.or(other).is_some_and(takes_daemons),
    }
}

/// The node a pod is on or pinned to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    named_nodes(&pod.spec)?.first().copied()
}

/// The pod that a DaemonSet would have on a node; none when the node takes none.
pub fn pod_on(set: &DaemonSet, node: &Node) -> Option<Pod> {
    let daemon = Daemon::of(set);
    let name = format!("{}-{}", set.metadata.name, node.metadata.name);
    let pod = (daemon.fit(node) == Fit::Yes).then(|| daemon.pod_for(set, &node.metadata.name, "").named(&name))?;
    Pod::deserialize(pod.object).ok()
}

/// The pod of a DaemonSet's template, for no node in particular.
pub(super) struct Daemon {
    template: Value,
    spec: PodSpec,
}

impl Daemon {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let mut template = set.spec.template.clone();
        let mut tolerations = template["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let on_host_network = template["spec"]["hostNetwork"] == true;
        for (key, effect) in TOLERATED.iter().chain(on_host_network.then_some(&TOLERATED_ON_HOST_NETWORK)) {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
        template["spec"]["tolerations"] = Value::Array(tolerations);
        // A template that cannot be read fits no node: the API has refused it before.
        let spec = PodSpec::deserialize(&template["spec"]).unwrap_or_default();
        Self { template, spec }
    }

    fn tolerations(&self) -> &[Toleration] {
        &self.spec.tolerations
    }

    pub(super) fn fit(&self, node: &Node) -> Fit {
        let named = self.spec.node_name.is_empty() || self.spec.node_name == node.metadata.name;
        if !named || !takes_daemons(node) || !node_allowed(&self.spec, &node.metadata) {
            return Fit::No;
        }
        if repelling(&node.spec.taints, self.tolerations()).is_none() {
            return Fit::Yes;
        }
        let driven_out = untolerated(&node.spec.taints, self.tolerations(), &[NO_EXECUTE]).is_some();
        if driven_out { Fit::No } else { Fit::Stays }
    }

    /// The pod for a node: pinned by name, so that the scheduler has no choice.
    pub(super) fn pod_for(&self, set: &DaemonSet, node: &str, hash: &str) -> NewPod {
        let mut pod = NewPod::of(set, &self.template)
            .generated(&format!("{}-", set.metadata.name))
            .label(CONTROLLER_REVISION_HASH, hash);
        if let Some(generation) = set.metadata.annotations.get(GENERATION_ANNOTATION) {
            pod = pod.label(GENERATION_LABEL, generation);
        }
        let field = json!({"key": NODE_NAME_FIELD, "operator": "In", "values": [node]});
        let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        pod.object["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = required;
        pod
    }
}
