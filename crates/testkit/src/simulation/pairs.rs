//! What belongs to exactly one other thing, at every moment and for good: claims and volumes, Fargate pods and their nodes, Jobs and the
//! times of CronJobs; and what budgets promise. Looks only at what is in the API.

use std::collections::BTreeMap;

use isopod_controllers::Change;
use serde_json::Value;

use super::invariants::{Verdict, ensure};
use super::kubelet::{is_ready, is_terminal};
use super::world::{
    BUDGETS, CLAIMS, CRON_JOBS, JOBS, NODES, PODS, VOLUMES, World, is_deleting, key, name, number, owner, text, uid,
};

/// Annotation of a node that was made for a pod.
pub(super) const POD_UID: &str = "/metadata/annotations/isopod.dev~1pod-uid";
const SCHEDULED: &str = "/metadata/annotations/batch.kubernetes.io~1cronjob-scheduled-timestamp";
/// The Deployment that a budget protects, and how many of its pods must be healthy.
pub(super) const PROTECTED: &str = "p0";
pub(super) const HEALTHY_MIN: usize = 2;
/// Pods that a Fargate profile matches.
pub(super) const SERVERLESS: &str = "f0";

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Volumes by the UID of their claim.
    volumes: BTreeMap<String, String>,
    /// Nodes by the UID of the pod that they were made for.
    nodes: BTreeMap<String, String>,
    /// Jobs by CronJob and time.
    jobs: BTreeMap<(String, String), String>,
    /// Others than the API's evictions took protected pods since all were there.
    disturbed: bool,
}

/// Notes a pair; false when there was another.
fn pair<K: Ord>(all: &mut BTreeMap<K, String>, one: K, other: &str) -> bool {
    all.entry(one).or_insert_with(|| other.into()) == other
}

impl Pairs {
    /// Takes in what changed in a collection.
    pub(super) fn observe(&mut self, path: &str, changes: &[Change]) -> Verdict {
        for change in changes {
            let Change::There(object) = change else { continue };
            match path {
                CLAIMS => self.claim(object)?,
                NODES => self.node(object)?,
                JOBS => self.job(object)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn claim(&mut self, claim: &Value) -> Verdict {
        let volume = text(claim, "/spec/volumeName");
        let same = volume.is_empty() || pair(&mut self.volumes, uid(claim).into(), volume);
        ensure(same, || format!("claim {} has had another volume than {volume}", key(claim)))
    }

    fn node(&mut self, node: &Value) -> Verdict {
        let pod = text(node, POD_UID);
        let same = pod.is_empty() || pair(&mut self.nodes, pod.into(), name(node));
        ensure(same, || format!("pod {pod} has had another node than {}", name(node)))
    }

    fn job(&mut self, job: &Value) -> Verdict {
        let (by, at) = (owner(job), text(job, SCHEDULED));
        let same = at.is_empty() || pair(&mut self.jobs, (by.into(), at.into()), uid(job));
        ensure(same, || format!("{at} has started another Job before {}", name(job)))
    }

    /// Somebody took something away.
    pub(super) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// The API lets a protected pod go, in this state of the world.
    pub(super) fn evicted(&self, world: &World, pod: &Value) -> Verdict {
        let left = protected(world).filter(|other| is_ready(other) && uid(other) != uid(pod)).count();
        ensure(self.disturbed || !is_ready(pod) || left >= HEALTHY_MIN, || {
            format!("the eviction of {} was granted and leaves {left} healthy pods", name(pod))
        })
    }

    /// What must always hold; whether all protected pods are there.
    pub(super) fn check(&mut self, world: &World, is_whole: bool) -> Verdict {
        let counted = world.all(BUDGETS).any(|budget| {
            let status = &budget["status"];
            number(status, "/disruptionsAllowed") == 1
                && status["disruptedPods"].as_object().is_none_or(|all| all.is_empty())
        });
        if is_whole && counted {
            self.disturbed = false;
        }
        claims(world)?;
        alone(world)
    }

    /// What must hold when nothing happens any more.
    pub(super) fn check_quiet(&self, world: &World) -> Verdict {
        for claim in world.all(CLAIMS) {
            let free = world.all(VOLUMES).filter(|volume| text(volume, "/status/phase") == "Available").count();
            let phase = text(claim, "/status/phase");
            let right = phase == "Bound" || phase == "Pending" && free == 0;
            ensure(right, || format!("claim {} is {phase} with {free} free volumes", key(claim)))?;
        }
        let nodes = world.all(NODES).filter(|node| !text(node, POD_UID).is_empty()).count();
        let pods = serverless(world).count();
        ensure(nodes == pods, || format!("{nodes} Fargate nodes for {pods} pods"))?;
        let active = |cron: &&Value| cron["status"]["active"].as_array().is_some_and(|all| !all.is_empty());
        let cron = world.all(CRON_JOBS).find(active);
        ensure(cron.is_none(), || format!("{cron:?} thinks that Jobs run"))
    }
}

pub(super) fn protected(world: &World) -> impl Iterator<Item = &Value> {
    world.all(PODS).filter(|pod| text(pod, "/metadata/labels/app") == PROTECTED)
}

fn serverless(world: &World) -> impl Iterator<Item = &Value> {
    world.all(PODS).filter(|pod| text(pod, "/metadata/labels/app") == SERVERLESS)
}

/// No volume is two claims', whatever either side says.
fn claims(world: &World) -> Verdict {
    let mut by_volume: BTreeMap<&str, &Value> = BTreeMap::new();
    for claim in world.all(CLAIMS).filter(|claim| text(claim, "/status/phase") == "Bound") {
        let volume = text(claim, "/spec/volumeName");
        let other = by_volume.insert(volume, claim);
        ensure(other.is_none(), || format!("volume {volume} is {}'s and another claim's", key(claim)))?;
        let said =
            world.all(VOLUMES).find(|found| name(found) == volume).map(|found| text(found, "/spec/claimRef/uid"));
        ensure(said.is_none_or(|said| said == uid(claim)), || format!("volume {volume} is not {}'s", key(claim)))?;
    }
    Ok(())
}

/// A Fargate pod has its node to itself, and it is the one that was made for it.
fn alone(world: &World) -> Verdict {
    let mut by_node: BTreeMap<&str, &Value> = BTreeMap::new();
    for pod in serverless(world).filter(|pod| !text(pod, "/spec/nodeName").is_empty()) {
        let at = text(pod, "/spec/nodeName");
        let node = world.all(NODES).find(|node| name(node) == at);
        let own = node.is_none_or(|node| text(node, POD_UID) == uid(pod));
        ensure(own, || format!("pod {} is on {at}, which was made for another", name(pod)))?;
        let other = by_node.insert(at, pod).filter(|other| !is_terminal(other) && !is_deleting(other));
        ensure(other.is_none() || is_terminal(pod) || is_deleting(pod), || format!("two pods are on {at}"))?;
    }
    Ok(())
}
