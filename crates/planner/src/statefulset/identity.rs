//! The identity of a StatefulSet's pods: name, labels, host name, claims.

use isopod_types::pod::Pod;
use isopod_types::statefulset::StatefulSet;
use serde_json::{Value, json};

use super::{View, storage};
use crate::plan::{Plan, Target, Write};
use crate::revisions::CONTROLLER_REVISION_HASH;
use crate::template::NewPod;

/// Label with a pod's own name, by which a Service can select one pod.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with a pod's ordinal.
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name; none when it is not a name of the set.
pub(super) fn ordinal(set: &StatefulSet, name: &str) -> Option<i64> {
    let digits = name.strip_prefix(&*set.metadata.name)?.strip_prefix('-')?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain)
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.metadata.name)
}

/// Pods below the partition are of the current revision, the others of the newest.
fn is_current(view: &View<'_>, ordinal: i64) -> bool {
    let strategy = &view.set.spec.update_strategy;
    strategy.type_ != "OnDelete" && ordinal < strategy.rolling_update.partition
}

/// The pod of an ordinal.
pub(super) fn new_pod(view: &View<'_>, ordinal: i64) -> NewPod {
    let set = view.set;
    let (revision, template) =
        if is_current(view, ordinal) { (&view.current.0, &view.current.1) } else { (&view.update, &set.spec.template) };
    let name = pod_name(set, ordinal);
    let mut pod = NewPod::of(set, template)
        .named(&name)
        .label(POD_NAME_LABEL, &*name)
        .label(POD_INDEX_LABEL, ordinal.to_string())
        .label(CONTROLLER_REVISION_HASH, revision);
    pod.object["spec"]["hostname"] = json!(name);
    pod.object["spec"]["subdomain"] = json!(set.spec.service_name);
    pod.object["spec"]["volumes"] = volumes(set, template, ordinal);
    pod
}

/// The template's volumes, with the pod's claims in the place of those of the same name.
fn volumes(set: &StatefulSet, template: &Value, ordinal: i64) -> Value {
    let claims: Vec<(String, String)> = storage::claim_names(set, ordinal);
    let others = template["spec"]["volumes"].as_array().into_iter().flatten();
    let others = others.filter(|volume| !claims.iter().any(|(name, _)| volume["name"] == **name)).cloned();
    let mine = claims.iter().map(|(name, claim)| json!({"name": name, "persistentVolumeClaim": {"claimName": claim}}));
    mine.chain(others).collect()
}

/// Gives an adopted or altered pod the label with its name back.
pub(super) fn restore(pod: &Pod, plan: &mut Plan) {
    let name = &pod.metadata.name;
    if pod.metadata.labels.get(POD_NAME_LABEL) != Some(name) && !pod.metadata.is_deleting() {
        let patch = json!({"metadata": {"labels": {POD_NAME_LABEL: name}}});
        plan.push(Write::Patch { target: Target::of::<Pod>(&pod.metadata), subresource: "", patch });
    }
}
