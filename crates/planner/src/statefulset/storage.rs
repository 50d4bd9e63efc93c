//! The claims of a StatefulSet's pods: made before the pod, kept or removed as the retention policy says.
//!
//! The policy works through owners: a claim that goes with the set is owned by the set, one that goes when its pod is one too many by
//! that pod. Garbage collection does the rest.

use isopod_types::pod::Pod;
use isopod_types::statefulset::StatefulSet;
use isopod_types::storage::PersistentVolumeClaim;
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use super::{View, identity};
use crate::plan::{Plan, Target, Write};

/// A claim as StatefulSets read it.
pub type Claim = PersistentVolumeClaim;

/// Whether a claim's name is that of a claim of the set.
pub fn owns_claim(set: &StatefulSet, claim: &str) -> bool {
    set.spec.volume_claim_templates.iter().any(|template| {
        let name = template["metadata"]["name"].as_str().unwrap_or_default();
        let pod = claim.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        pod.is_some_and(|pod| identity::ordinal(set, pod).is_some())
    })
}

/// Names of templates and of the claims that the pod of an ordinal has from them.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i64) -> Vec<(String, String)> {
    let templates = set.spec.volume_claim_templates.iter();
    let names = templates.map(|template| template["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    names.map(|name| (name.clone(), format!("{name}-{}", identity::pod_name(set, ordinal)))).collect()
}

fn existing<'a>(view: &View<'a>, name: &str) -> Option<&'a Claim> {
    view.world.claims.iter().copied().find(|claim| claim.metadata.name == name)
}

/// Whether all claims of an ordinal are there; those that are not are made. A claim that goes with an earlier pod of the
/// same name is waited for.
pub(super) fn ready(view: &View<'_>, ordinal: i64, plan: &mut Plan) -> bool {
    let mut all = true;
    for (template, (_, name)) in view.set.spec.volume_claim_templates.iter().zip(claim_names(view.set, ordinal)) {
        match existing(view, &name) {
            Some(claim) => all &= !goes_with_a_pod(view, claim, ordinal),
            None => {
                all = false;
                plan.push(create(view.set, template, &name));
            }
        }
    }
    all
}

/// Whether a claim belongs to a pod that is no longer the one of its ordinal.
fn goes_with_a_pod(view: &View<'_>, claim: &Claim, ordinal: i64) -> bool {
    let name = identity::pod_name(view.set, ordinal);
    let present = view.slots.iter().find(|(number, _)| *number == ordinal).and_then(|(_, pod)| *pod);
    let mut owners = claim.metadata.owner_references.iter();
    claim.metadata.is_deleting()
        || owners.any(|owner| {
            owner.kind == Pod::KIND && owner.name == name && present.is_none_or(|pod| pod.metadata.uid != owner.uid)
        })
}

fn create(set: &StatefulSet, template: &Value, name: &str) -> Write {
    let mut object = template.clone();
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(Claim::KIND);
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!(set.metadata.namespace);
    for (key, value) in &set.spec.selector.match_labels {
        object["metadata"]["labels"][key] = json!(value);
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if policy(set).0 {
        object["metadata"]["ownerReferences"] = json!([set_reference(set)]);
    }
    let target = Target::named::<Claim>(Key::new(&*set.metadata.namespace, name));
    Write::Create { target, object, tolerate_existing: true }
}

/// Whether claims go with the set, and with a pod that is one too many.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = &set.spec.persistent_volume_claim_retention_policy;
    (policy.when_deleted == "Delete", policy.when_scaled == "Delete")
}

fn set_reference(set: &StatefulSet) -> OwnerReference {
    OwnerReference::controller(&StatefulSet::api_version(), StatefulSet::KIND, &set.metadata)
}

/// Gives the claims of all pods the owners that the policy asks for.
pub(super) fn keep_policy(view: &View<'_>, plan: &mut Plan) {
    let wanted = view.slots.iter().filter_map(|(ordinal, pod)| Some((*ordinal, (*pod)?, false)));
    let condemned = view.condemned.iter().map(|(ordinal, pod)| (*ordinal, *pod, true));
    for (ordinal, pod, is_condemned) in wanted.chain(condemned) {
        for (_, name) in claim_names(view.set, ordinal) {
            if let Some(claim) = existing(view, &name) {
                own(view.set, pod, is_condemned, claim, plan);
            }
        }
    }
}

fn own(set: &StatefulSet, pod: &Pod, is_condemned: bool, claim: &Claim, plan: &mut Plan) {
    let (with_set, with_pod) = policy(set);
    let by_pod = with_pod && is_condemned;
    let mut owners: Vec<OwnerReference> = claim.metadata.owner_references.clone();
    owners.retain(|owner| owner.uid != set.metadata.uid && owner.uid != pod.metadata.uid);
    if by_pod {
        owners.push(OwnerReference::controller("v1", Pod::KIND, &pod.metadata));
    } else if with_set {
        owners.push(set_reference(set));
    }
    let same = |a: &[OwnerReference], b: &[OwnerReference]| {
        a.len() == b.len() && a.iter().all(|one| b.iter().any(|other| one.uid == other.uid))
    };
    if !same(&owners, &claim.metadata.owner_references) {
        let patch = json!({"metadata": {"ownerReferences": owners}});
        plan.push(Write::Patch { target: Target::of::<Claim>(&claim.metadata), subresource: "", patch });
    }
}
