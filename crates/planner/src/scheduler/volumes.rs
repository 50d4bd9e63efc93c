//! Volumes of a pod that is to be placed: from which nodes they can be reached, and which claims get a volume with the node.
//!
//! Source: the `VolumeBinding` and `VolumeRestrictions` plugins of kube-scheduler.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::pod::Pod;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim, StorageClass, TopologySelectorTerm};
use isopod_types::{Key, ObjectMeta};

use super::affinity::selector_matches;
use super::index::Index;
use super::messages::Why;
use crate::persistent_volumes::matching::fitting;
use crate::persistent_volumes::{NO_PROVISIONER, SELECTED_NODE, is_fully_bound};

/// Claims, volumes and classes by key.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// Claims.
    pub claims: &'a BTreeMap<Key, PersistentVolumeClaim>,
    /// Volumes.
    pub volumes: &'a BTreeMap<Key, PersistentVolume>,
    /// Classes.
    pub classes: &'a BTreeMap<Key, StorageClass>,
}

/// A claim that gets its volume with the node.
#[derive(Clone, Debug)]
struct Unbound<'a> {
    claim: &'a PersistentVolumeClaim,
    class: &'a StorageClass,
    /// Volumes that would do, the best first.
    fitting: Vec<&'a PersistentVolume>,
}

/// What a pod's volumes ask of a node.
#[derive(Clone, Debug, Default)]
pub struct Volumes<'a> {
    bound: Vec<&'a PersistentVolume>,
    is_gone: bool,
    unbound: Vec<Unbound<'a>>,
    /// A claim that another pod has for itself alone.
    is_taken: bool,
}

/// How a claim gets its volume once the node is chosen.
#[derive(Clone, Debug)]
pub enum Binding<'a> {
    /// This volume is for this claim.
    Volume(&'a PersistentVolume, &'a PersistentVolumeClaim),
    /// A volume is to be made for this claim at the node.
    Provision(&'a PersistentVolumeClaim),
}

/// Whether a volume can be reached from a node.
pub fn is_reachable(volume: &PersistentVolume, node: &ObjectMeta) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| selector_matches(selector, node))
}

fn allows(topologies: &[TopologySelectorTerm], node: &ObjectMeta) -> bool {
    let met = |term: &TopologySelectorTerm| {
        term.match_label_expressions
            .iter()
            .all(|one| node.labels.get(&one.key).is_some_and(|value| one.values.contains(value)))
    };
    topologies.is_empty() || topologies.iter().any(met)
}

/// Whether a volume of an ephemeral claim's name was made for another purpose.
fn is_foreign(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let ephemeral = pod.spec.volumes.iter().any(|volume| {
        volume.other.contains_key("ephemeral")
            && format!("{}-{}", pod.metadata.name, volume.name) == claim.metadata.name
    });
    ephemeral && !claim.metadata.is_controlled_by(&pod.metadata.uid)
}

impl<'a> Volumes<'a> {
    /// What a pod's volumes ask of nodes.
    ///
    /// # Errors
    /// Why no node will do, as a sentence.
    pub fn new(index: &Index, pod: &Pod, claims: &[String], storage: Storage<'a>) -> Result<Self, String> {
        let mut volumes = Self::default();
        for name in claims {
            let key = Key::new(&*pod.metadata.namespace, &**name);
            let claim = storage.claims.get(&key).ok_or_else(|| missing(pod, name))?;
            if claim.metadata.is_deleting() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if claim.status.phase == "Lost" {
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                    claim.spec.volume_name
                ));
            }
            if is_foreign(pod, claim) {
                let pod = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
                return Err(format!("PVC {name:?} was not created for pod {pod:?} (pod is not owner)"));
            }
            let alone = claim.spec.access_modes.iter().any(|mode| mode == "ReadWriteOncePod");
            let own = Key::new(&*pod.metadata.namespace, &*pod.metadata.name);
            volumes.is_taken |= alone && index.users(&key).any(|user| *user != own);
            volumes.add(claim, storage)?;
        }
        Ok(volumes)
    }

    fn add(&mut self, claim: &'a PersistentVolumeClaim, storage: Storage<'a>) -> Result<(), String> {
        if is_fully_bound(claim) {
            match storage.volumes.get(&Key::cluster(&*claim.spec.volume_name)) {
                Some(volume) => self.bound.push(volume),
                None => self.is_gone = true,
            }
            return Ok(());
        }
        let class = storage.classes.get(&Key::cluster(claim.class()));
        match class.filter(|class| class.waits_for_consumer() && claim.spec.volume_name.is_empty()) {
            Some(class) => {
                let fitting = fitting(claim, storage.volumes.values());
                self.unbound.push(Unbound { claim, class, fitting });
                Ok(())
            }
            None => Err("pod has unbound immediate PersistentVolumeClaims".into()),
        }
    }

    /// Whether all claims have their volumes.
    pub fn are_bound(&self) -> bool {
        self.unbound.is_empty()
    }

    /// Whether a claim for which a volume was to be made at the pod's node is not to be made there any more.
    pub fn were_given_up(&self) -> bool {
        let is_selected = |claim: &PersistentVolumeClaim| claim.metadata.annotations.contains_key(SELECTED_NODE);
        self.unbound.iter().any(|unbound| unbound.fitting.is_empty() && !is_selected(unbound.claim))
    }

    /// Whether the pod's volumes allow a node.
    pub fn check(&self, index: &Index, node: &ObjectMeta) -> Result<(), Why> {
        if self.is_taken {
            return Err(Why::ClaimInUse);
        }
        if self.is_gone {
            return Err(Why::VolumeGone);
        }
        if !self.bound.iter().all(|volume| is_reachable(volume, node)) {
            return Err(Why::VolumeAffinity);
        }
        if self.unbound.is_empty() || self.bindings(index, node).is_some() { Ok(()) } else { Err(Why::NoVolume) }
    }

    /// How the claims without volumes get them at a node; none when one cannot.
    pub fn bindings(&self, index: &Index, node: &ObjectMeta) -> Option<Vec<Binding<'a>>> {
        let mut taken = BTreeSet::new();
        self.unbound.iter().map(|unbound| unbound.binding(index, node, &mut taken)).collect()
    }
}

impl<'a> Unbound<'a> {
    fn binding(&self, index: &Index, node: &ObjectMeta, taken: &mut BTreeSet<&'a str>) -> Option<Binding<'a>> {
        let selected = self.claim.metadata.annotations.get(SELECTED_NODE).filter(|name| index.slot(name).is_some());
        if let Some(name) = selected {
            return (*name == node.name).then_some(Binding::Provision(self.claim));
        }
        let mut free = self.fitting.iter().filter(|volume| !taken.contains(volume.metadata.name.as_str()));
        if let Some(volume) = free.find(|volume| is_reachable(volume, node)) {
            taken.insert(&volume.metadata.name);
            return Some(Binding::Volume(volume, self.claim));
        }
        let makes = self.class.provisioner != NO_PROVISIONER && allows(&self.class.allowed_topologies, node);
        makes.then_some(Binding::Provision(self.claim))
    }
}

/// A claim that is not there: the user's, or one that is about to be made for an ephemeral volume.
fn missing(pod: &Pod, name: &str) -> String {
    let ephemeral = pod.spec.volumes.iter().any(|volume| {
        volume.other.contains_key("ephemeral") && format!("{}-{}", pod.metadata.name, volume.name) == name
    });
    match ephemeral {
        true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
        false => format!("persistentvolumeclaim {name:?} not found"),
    }
}
