//! What must hold at every moment of a simulation, and what must hold in the end. Looks only at what is in the API and at what
//! kubelets did; never at what the controllers think.

use std::collections::{BTreeMap, BTreeSet};

use isopod_controllers::Change;
use serde_json::Value;

use super::kubelet::{Running, is_ready, is_terminal};
use super::pairs::{POD_UID, PROTECTED, Pairs};
use super::world::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, NODES, PODS, REPLICA_SETS, STATEFUL_SETS, World, is_deleting, key, name, number,
    owner, text, uid,
};

/// What was seen of one Deployment since it was last complete.
#[derive(Debug)]
struct Rollout {
    least: i64,
    most: i64,
    /// Somebody else took pods or sets away.
    disturbed: bool,
    /// It was complete once.
    established: bool,
}

/// What was seen of the pods of one Job.
#[derive(Debug, Default)]
struct Ended {
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bound: BTreeMap<String, String>,
    pub(super) running: Running,
    rollouts: BTreeMap<String, Rollout>,
    jobs: BTreeMap<String, Ended>,
    counted: BTreeMap<String, (i64, i64)>,
    /// Most pods that each set wanted since it had no more than it wants.
    sets: BTreeMap<String, i64>,
    /// No write is lost from now on, so no set may have more pods than it wanted.
    pub(super) exact: bool,
    pub(super) pairs: Pairs,
}

pub(super) type Verdict = Result<(), String>;

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Whether the Job's controller still has to count a pod.
fn is_tracked(pod: &Value) -> bool {
    let finalizers = pod["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|one| one == "batch.kubernetes.io/job-tracking"))
}

impl Ledger {
    /// Takes in what changed in a collection.
    pub(super) fn observe(&mut self, path: &str, changes: &[Change]) -> Verdict {
        self.pairs.observe(path, changes)?;
        for change in changes.iter().filter(|_| path == PODS) {
            match change {
                Change::There(pod) => self.pod(pod)?,
                Change::Gone(pod) => {
                    let ran = self.running.0.contains_key(uid(pod));
                    ensure(!ran, || format!("pod {} is gone while it runs", key(pod)))?;
                }
                Change::Whole(_) => {}
            }
        }
        Ok(())
    }

    fn pod(&mut self, pod: &Value) -> Verdict {
        let node = text(pod, "/spec/nodeName");
        if !node.is_empty() {
            let first = self.bound.entry(uid(pod).into()).or_insert_with(|| node.into());
            ensure(first == node, || format!("pod {} was bound to {first} and then to {node}", key(pod)))?;
        }
        let ended = self.jobs.entry(owner(pod).into()).or_default();
        if is_tracked(pod) && text(pod, "/status/phase") == "Succeeded" {
            ended.succeeded.insert(uid(pod).into());
        } else if is_deleting(pod) || text(pod, "/status/phase") == "Failed" {
            ended.failed.insert(uid(pod).into());
        }
        Ok(())
    }

    /// A kubelet starts a pod.
    pub(super) fn started(&mut self, pod: &Value) -> Verdict {
        let name = key(pod).to_string();
        let twin = self.running.0.iter().find(|(other, (_, running))| *running == name && *other != uid(pod));
        ensure(twin.is_none(), || format!("two pods run as {name}"))?;
        self.running.0.insert(uid(pod).into(), (text(pod, "/spec/nodeName").into(), name));
        Ok(())
    }

    /// A kubelet saw the end of a pod.
    pub(super) fn ended(&mut self, pod: &Value) {
        self.running.0.remove(uid(pod));
    }

    /// A node is no more, with all that ran on it.
    pub(super) fn node_gone(&mut self, node: &str) {
        self.running.0.retain(|_, (at, _)| at != node);
        self.disturb();
    }

    /// Somebody took pods or sets away.
    pub(super) fn disturb(&mut self) {
        self.rollouts.values_mut().for_each(|rollout| rollout.disturbed = true);
        self.pairs.disturb();
    }

    /// The API grants the eviction of a protected pod: its Deployment has one less than it would leave by itself.
    pub(super) fn evicted(&mut self, world: &World, pod: &Value) -> Verdict {
        for deployment in world.all(DEPLOYMENTS).filter(|found| name(found) == PROTECTED) {
            if let Some(rollout) = self.rollouts.get_mut(uid(deployment)) {
                rollout.disturbed = true;
            }
        }
        self.pairs.evicted(world, pod)
    }

    /// What must always hold.
    pub(super) fn check(&mut self, world: &World) -> Verdict {
        capacity(world)?;
        for deployment in world.all(DEPLOYMENTS).filter(|found| !is_deleting(found)) {
            self.rollout(world, deployment)?;
        }
        for job in world.all(JOBS) {
            self.job(job)?;
        }
        if self.exact {
            world.all(REPLICA_SETS).try_for_each(|set| self.counted_pods(world, set))?;
        }
        let of_budget = |found: &&Value| name(found) == PROTECTED;
        let protected = world.all(DEPLOYMENTS).find(of_budget);
        self.pairs.check(world, protected.is_some_and(|found| settled(world, found, &self.running)))
    }

    /// A set makes no pod too many: so what sets want bounds how many pods a Deployment has.
    fn counted_pods(&mut self, world: &World, set: &Value) -> Verdict {
        let wanted = number(set, "/spec/replicas");
        let active = world.owned(PODS, uid(set)).filter(|pod| !is_deleting(pod) && !is_terminal(pod)).count();
        let seen = number(&set["status"], "/observedGeneration") == number(set, "/metadata/generation");
        let most = self.sets.entry(uid(set).into()).or_insert(count(active));
        // What was decided for an earlier wish may still come about, until its controller has seen the new one.
        *most = if seen && count(active) <= wanted { wanted } else { wanted.max(*most) };
        let most = *most;
        ensure(count(active) <= most, || format!("ReplicaSet {} has {active} pods and wanted {most}", name(set)))
    }

    fn rollout(&mut self, world: &World, deployment: &Value) -> Verdict {
        let replicas = number(deployment, "/spec/replicas");
        let pods: Vec<&Value> =
            world.owned(REPLICA_SETS, uid(deployment)).flat_map(|set| world.owned(PODS, uid(set))).collect();
        let ready = count(pods.iter().filter(|pod| is_ready(pod)).count());
        // The bound is on what sets are to have, as upstream's: a pod may take its time to go.
        let found = world.owned(REPLICA_SETS, uid(deployment)).map(|set| number(set, "/spec/replicas")).sum::<i64>();
        let begun = Rollout { least: replicas, most: replicas, disturbed: false, established: false };
        let rollout = self.rollouts.entry(uid(deployment).into()).or_insert(begun);
        (rollout.least, rollout.most) = (rollout.least.min(replicas), rollout.most.max(replicas));
        let surge = number(deployment, "/spec/strategy/rollingUpdate/maxSurge");
        let missing = number(deployment, "/spec/strategy/rollingUpdate/maxUnavailable");
        let rolls = text(deployment, "/spec/strategy/type") == "RollingUpdate";
        let (least, most) = (rollout.least - missing, rollout.most + surge);
        let about = || {
            format!("Deployment {}: {found} wanted in sets, {ready} ready, bounds {least} to {most}", name(deployment))
        };
        ensure(rollout.disturbed || found <= most, about)?;
        ensure(rollout.disturbed || !rolls || !rollout.established || ready >= least, about)?;
        if settled(world, deployment, &self.running) {
            *rollout = Rollout { least: replicas, most: replicas, disturbed: false, established: true };
        }
        Ok(())
    }

    fn job(&mut self, job: &Value) -> Verdict {
        let told = (number(job, "/status/succeeded"), number(job, "/status/failed"));
        let ended = self.jobs.entry(uid(job).into()).or_default();
        let seen = (count(ended.succeeded.len()), count(ended.failed.len()));
        let about = || format!("Job {} counts {told:?}, but {seen:?} of its pods ended", name(job));
        ensure(told.0 <= seen.0 && told.1 <= seen.1, about)?;
        let before = self.counted.insert(uid(job).into(), told).unwrap_or_default();
        let about = || format!("Job {} counted {before:?} and then {told:?}", name(job));
        ensure(before.0 <= told.0 && before.1 <= told.1, about)
    }

    /// What must hold when nothing happens any more.
    pub(super) fn check_quiet(&self, world: &World) -> Verdict {
        self.pairs.check_quiet(world)?;
        for deployment in world.all(DEPLOYMENTS) {
            deployed(world, deployment)?;
        }
        for set in world.all(STATEFUL_SETS) {
            numbered(world, set)?;
        }
        for set in world.all(DAEMON_SETS) {
            let found = world.owned(PODS, uid(set)).filter(|pod| is_ready(pod)).count();
            let nodes = world.all(NODES).filter(|node| text(node, POD_UID).is_empty()).count();
            ensure(found == nodes, || format!("DaemonSet {}: {found} ready pods on {nodes} nodes", name(set)))?;
        }
        for job in world.all(JOBS) {
            self.finished(world, job)?;
        }
        collected(world)
    }

    fn finished(&self, world: &World, job: &Value) -> Verdict {
        let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        let mut holding = conditions.filter(|one| one["status"] == "True").map(|one| text(one, "/type"));
        let active = world.owned(PODS, uid(job)).filter(|pod| !is_terminal(pod)).count();
        ensure(world.owned(PODS, uid(job)).all(|pod| !is_tracked(pod)) || active > 0, || {
            format!("Job {} has not let go of its pods", name(job))
        })?;
        if job["spec"]["suspend"] == true && number(job, "/status/active") == 0 && active == 0 {
            return Ok(());
        }
        let end = holding.find(|one| matches!(*one, "Complete" | "Failed"));
        ensure(end.is_some() && active == 0, || format!("Job {} has not finished: {}", name(job), job["status"]))?;
        let seen = self.jobs.get(uid(job)).map_or(0, |ended| count(ended.succeeded.len()));
        let told = number(job, "/status/succeeded");
        ensure(end != Some("Complete") || told == seen, || {
            format!("Job {} counts {told} pods, {seen} succeeded", name(job))
        })
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A Deployment has what it wants and says so.
fn deployed(world: &World, deployment: &Value) -> Verdict {
    let wanted = number(deployment, "/spec/replicas");
    let status = &deployment["status"];
    let says = ["/availableReplicas", "/updatedReplicas", "/replicas"].iter().all(|at| number(status, at) == wanted)
        && number(status, "/observedGeneration") == number(deployment, "/metadata/generation");
    let sets = || world.owned(REPLICA_SETS, uid(deployment));
    let pods = || sets().flat_map(|set| world.owned(PODS, uid(set)));
    let kept = sets().filter(|set| number(set, "/spec/replicas") > 0).count();
    let has = count(pods().count()) == wanted && pods().all(is_ready) && kept <= 1;
    ensure(says && has && !is_deleting(deployment), || {
        format!("Deployment {} wants {wanted}, has {}: {status}", name(deployment), pods().count())
    })
}

/// The same, and all its pods really run: those that went with a node are yet to be missed, also when a node of its name is there.
fn settled(world: &World, deployment: &Value, running: &Running) -> bool {
    let mut pods = world.owned(REPLICA_SETS, uid(deployment)).flat_map(|set| world.owned(PODS, uid(set)));
    deployed(world, deployment).is_ok() && pods.all(|pod| running.0.contains_key(uid(pod)))
}

/// A StatefulSet has its ordinals and says so.
fn numbered(world: &World, set: &Value) -> Verdict {
    let wanted = number(set, "/spec/replicas");
    let names: BTreeSet<String> = (0..wanted).map(|ordinal| format!("{}-{ordinal}", name(set))).collect();
    let pods: Vec<&Value> = world.owned(PODS, uid(set)).collect();
    let status = &set["status"];
    let found: BTreeSet<String> = pods.iter().filter(|pod| is_ready(pod)).map(|pod| name(pod).to_owned()).collect();
    let says = number(status, "/readyReplicas") == wanted
        && number(status, "/replicas") == wanted
        && status["currentRevision"] == status["updateRevision"]
        && number(status, "/observedGeneration") == number(set, "/metadata/generation");
    let revision = text(status, "/updateRevision");
    let new = pods.iter().all(|pod| pod["metadata"]["labels"]["controller-revision-hash"] == revision);
    ensure(says && new && found == names && pods.len() == names.len(), || {
        format!("StatefulSet {} wants {names:?}, has {found:?}: {status}", name(set))
    })
}

/// Nothing is left of what has gone.
fn collected(world: &World) -> Verdict {
    let uids: BTreeSet<&str> = world.everything().map(uid).collect();
    for object in world.everything() {
        let about = || format!("{} {}", text(object, "/metadata/namespace"), name(object));
        ensure(!is_deleting(object), || format!("{} is still ending: {}", about(), object["metadata"]))?;
        let owners: Vec<&Value> = object["metadata"]["ownerReferences"].as_array().into_iter().flatten().collect();
        let some = owners.is_empty() || owners.iter().any(|owner| uids.contains(text(owner, "/uid")));
        ensure(some, || format!("{} has outlived its owner", about()))?;
    }
    Ok(())
}

/// No node holds more than it has room for. Every container asks for whole thousandths of a CPU.
fn capacity(world: &World) -> Verdict {
    let mut used: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in world.all(PODS).filter(|pod| !is_terminal(pod)) {
        let asked = text(pod, "/spec/containers/0/resources/requests/cpu").trim_end_matches('m').parse::<i64>();
        *used.entry(text(pod, "/spec/nodeName")).or_default() += asked.unwrap_or_default();
    }
    for node in world.all(NODES).filter(|node| text(node, POD_UID).is_empty()) {
        let room = text(node, "/status/allocatable/cpu").parse::<i64>().unwrap_or_default() * 1000;
        let taken = used.get(name(node)).copied().unwrap_or_default();
        ensure(taken <= room, || format!("node {} has room for {room}m and holds {taken}m", name(node)))?;
    }
    Ok(())
}
