//! What becomes of a claim: it finds a volume, has one made, waits for its pod, keeps what it has, or has lost it.

use std::collections::BTreeMap;

use isopod_types::node::Node;
use isopod_types::own::Host;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use isopod_types::{Key, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::growing::grow;
use super::matching::{fitting, is_for, mismatch};
use super::provisioning::provision;
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, COMPONENT, SELECTED_NODE, is_fully_bound, volume_for};
use crate::plan::{Plan, Reason, Target, Write};

/// Keeps a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// What decisions about claims see.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// Volumes.
    pub volumes: &'a BTreeMap<Key, PersistentVolume>,
    /// Classes.
    pub classes: &'a BTreeMap<Key, StorageClass>,
    /// Nodes.
    pub nodes: &'a BTreeMap<Key, Node>,
    /// Hosts.
    pub hosts: &'a BTreeMap<Key, Host>,
}

/// What is known of the pods that name a claim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users<'a> {
    /// Whether one is on a node and has not ended.
    pub in_use: bool,
    /// One that has no node yet.
    pub waiting: Option<&'a str>,
}

/// Decides about one claim.
pub fn plan(claim: &PersistentVolumeClaim, users: Users<'_>, world: World<'_>, now: Timestamp) -> Plan {
    if let Some(write) = protection(claim, users.in_use) {
        return Plan { writes: vec![write], again_at: None };
    }
    if claim.metadata.is_deleting() {
        return Plan::nothing();
    }
    if is_fully_bound(claim) { keep(claim, world, now) } else { find(claim, users, world) }
}

/// The claim's finalizers, when they are not what they should be.
fn protection(claim: &PersistentVolumeClaim, in_use: bool) -> Option<Write> {
    let meta = &claim.metadata;
    let has = meta.finalizers.iter().any(|name| name == CLAIM_PROTECTION);
    let mut finalizers = meta.finalizers.clone();
    match (meta.is_deleting(), has) {
        (false, false) => finalizers.push(CLAIM_PROTECTION.into()),
        (true, true) if !in_use => finalizers.retain(|name| name != CLAIM_PROTECTION),
        _ => return None,
    }
    let patch = json!({"metadata": {"finalizers": finalizers}});
    Some(Write::Patch { target: Target::of::<PersistentVolumeClaim>(meta), subresource: "", patch })
}

fn phase(claim: &PersistentVolumeClaim, phase: &str) -> Option<Write> {
    let target = Target::of::<PersistentVolumeClaim>(&claim.metadata);
    let patch = json!({"status": {"phase": phase}});
    (claim.status.phase != phase).then(|| Write::Patch { target, subresource: "status", patch })
}

fn say(claim: &PersistentVolumeClaim, reason: Reason) -> Plan {
    let mut plan = Plan::nothing();
    plan.event(&Target::of::<PersistentVolumeClaim>(&claim.metadata), COMPONENT, reason);
    plan
}

/// A claim that was bound: it is still, or it has lost its volume.
fn keep(claim: &PersistentVolumeClaim, world: World<'_>, now: Timestamp) -> Plan {
    let volume = world.volumes.get(&Key::cluster(&*claim.spec.volume_name));
    let (reason, words) = match volume.map(|volume| (volume, &volume.spec.claim_ref)) {
        Some((volume, None)) => return bind(claim, volume),
        Some((volume, Some(reference))) if is_for(reference, claim) => {
            let mut plan = bind(claim, volume);
            if plan.writes.is_empty() {
                grow(claim, volume, now, &mut plan);
            }
            return plan;
        }
        Some(_) => ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
        None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
    };
    let Some(write) = phase(claim, "Lost") else { return Plan::nothing() };
    let mut plan = say(claim, Reason::warning(reason, words));
    plan.push(write);
    plan
}

fn find(claim: &PersistentVolumeClaim, users: Users<'_>, world: World<'_>) -> Plan {
    if let Some(write) = default_class(claim, world) {
        return Plan { writes: vec![write], again_at: None };
    }
    let class = world.classes.get(&Key::cluster(claim.class()));
    let waits = class.is_some_and(StorageClass::waits_for_consumer);
    if !claim.spec.volume_name.is_empty() {
        return take_named(claim, world);
    }
    let is_own = |volume: &&PersistentVolume| volume.spec.claim_ref.is_some();
    let found = fitting(claim, world.volumes.values()).into_iter().find(|volume| !waits || is_own(volume));
    if let Some(volume) = found {
        return bind(claim, volume);
    }
    if waits && !claim.metadata.annotations.contains_key(SELECTED_NODE) {
        return say(claim, waiting_words(users));
    }
    match class {
        Some(class) => provision(claim, class, world),
        None if claim.class().is_empty() => say(claim, no_volume()),
        None => {
            let words = format!("storageclass.storage.k8s.io {:?} not found", claim.class());
            say(claim, Reason::warning("ProvisioningFailed", words))
        }
    }
}

fn no_volume() -> Reason {
    let words = "no persistent volumes available for this claim and no storage class is set";
    Reason::normal("FailedBinding", words)
}

fn waiting_words(users: Users<'_>) -> Reason {
    match users.waiting {
        Some(pod) => Reason::normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        None => {
            let words = "waiting for first consumer to be created before binding";
            Reason::normal("WaitForFirstConsumer", words)
        }
    }
}

/// A claim that was made before there was a default class gets it now.
fn default_class(claim: &PersistentVolumeClaim, world: World<'_>) -> Option<Write> {
    if claim.spec.storage_class_name.is_some() {
        return None;
    }
    let is_default = |class: &&StorageClass| {
        DEFAULT_CLASS.iter().any(|name| class.metadata.annotations.get(*name).is_some_and(|value| value == "true"))
    };
    let defaults = world.classes.values().filter(is_default);
    let class =
        defaults.max_by_key(|class| (class.metadata.creation_timestamp, std::cmp::Reverse(&class.metadata.name)))?;
    let patch = json!({"spec": {"storageClassName": class.metadata.name}});
    Some(Write::Patch { target: Target::of::<PersistentVolumeClaim>(&claim.metadata), subresource: "", patch })
}

/// A claim that says which volume it wants.
fn take_named(claim: &PersistentVolumeClaim, world: World<'_>) -> Plan {
    let name = &claim.spec.volume_name;
    let Some(volume) = world.volumes.get(&Key::cluster(&**name)) else { return Plan::nothing() };
    match &volume.spec.claim_ref {
        Some(reference) if is_for(reference, claim) => bind(claim, volume),
        Some(_) => {
            let words = format!("volume {name:?} already bound to a different claim.");
            say(claim, Reason::warning("FailedBinding", words))
        }
        None => match mismatch(claim, volume) {
            None => bind(claim, volume),
            Some(why) => {
                let words = format!("Cannot bind to requested volume {name:?}: {why}");
                say(claim, Reason::warning("VolumeMismatch", words))
            }
        },
    }
}

/// The writes that are still missing until claim and volume know of each other. Each step leaves a state from which the
/// next can be taken, so that it does not matter where a crash falls.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::nothing();
    let mut of_volume = Target::of::<PersistentVolume>(&volume.metadata);
    let mut of_claim = Target::of::<PersistentVolumeClaim>(&claim.metadata);
    if let Some(write) = volume_for(volume, claim) {
        plan.push(write);
        of_volume.resource_version.clear();
    }
    if volume.status.phase != "Bound" {
        let patch = json!({"status": {"phase": "Bound"}});
        plan.push(Write::Patch { target: of_volume, subresource: "status", patch });
    }
    if !is_fully_bound(claim) || claim.spec.volume_name != volume.metadata.name {
        let chosen = claim.spec.volume_name.is_empty();
        let mut annotations = json!({BIND_COMPLETED: "yes"});
        if chosen {
            annotations[BOUND_BY_CONTROLLER] = json!("yes");
        }
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume.metadata.name}});
        plan.push(Write::Patch { target: of_claim.clone(), subresource: "", patch });
        of_claim.resource_version.clear();
    }
    if claim.status.phase != "Bound" || claim.status.access_modes != volume.spec.access_modes {
        let status = bound_status(volume);
        plan.push(Write::Patch { target: of_claim, subresource: "status", patch: json!({"status": status}) });
    }
    plan
}

fn bound_status(volume: &PersistentVolume) -> Value {
    json!({"phase": "Bound", "accessModes": volume.spec.access_modes, "capacity": volume.spec.capacity})
}

/// The key of a claim's named or own volume, for changes of the claim.
pub fn volume_keys(claim: &PersistentVolumeClaim) -> Vec<Key> {
    let named = (!claim.spec.volume_name.is_empty()).then(|| claim.spec.volume_name.clone());
    let own = super::provisioning::volume_name(claim.meta());
    named.into_iter().chain([own]).map(Key::cluster).collect()
}
