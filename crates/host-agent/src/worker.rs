//! Worker nodes of this host: for each a task that makes its machine, says how it is, makes it anew when it has ended, and takes
//! it away with the node's object.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use isopod_planner::pod::resize::{self, Room};
use isopod_planner::pod::{Machine as MachineState, Observed};
use isopod_planner::scheduler::resources::{self, Resources as Amounts};
use isopod_planner::{EventType, Reason, fargate};
use isopod_types::Quantity;
use isopod_types::instances::{self, InstanceType};
use isopod_types::names::{INSTANCE_TYPE_LABEL, NODEGROUP_LABEL, VOLUME_SIZE_ANNOTATION};
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::Context;
use crate::convert;
use crate::drivers::{Lodging, NODE_ID_PREFIX, NodeMachine, NodeRequest};
use crate::node::{Identity, WorkerState, worker_status};

/// Delays before a machine that failed is made again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Disk of a node whose object does not say.
const DISK_GIB: u64 = 80;

/// What pods have of a node, by UID.
pub(crate) type Shares = BTreeMap<String, Amounts>;

type Up = Option<Arc<dyn NodeMachine>>;

/// A worker node as pods and others see it. Clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) instance: InstanceType,
    /// By what this start of its machine is known.
    boot: Arc<Mutex<Uuid>>,
    block: Ipv4Net,
    disk_gib: u64,
    machine: watch::Receiver<Up>,
    /// Addresses of pods by UID.
    taken: Arc<Mutex<BTreeMap<String, Ipv4Addr>>>,
    /// What pods have of it.
    pub(crate) shares: watch::Sender<Shares>,
    /// Its state has to be said again.
    again: Arc<Notify>,
    end: CancellationToken,
}

/// Id of a node's machine.
pub(crate) fn machine_id(uid: &str) -> String {
    format!("{NODE_ID_PREFIX}{uid}")
}

impl Worker {
    /// Starts the task of a node; none when the object is not one of a worker node of ours.
    pub(crate) fn start(context: &Arc<Context>, node: &Node, adopted: Up) -> Option<Self> {
        let labels = &node.metadata.labels;
        labels.get(NODEGROUP_LABEL)?;
        let (up, machine) = watch::channel(adopted);
        let disk_gib = node.metadata.annotations.get(VOLUME_SIZE_ANNOTATION).and_then(|text| text.parse().ok());
        let worker = Self {
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            address: fargate::host_address(&node.metadata.name)?,
            instance: instances::find(labels.get(INSTANCE_TYPE_LABEL)?)?,
            boot: Arc::new(Mutex::new(
                Uuid::try_parse(&node.status.node_info.boot_id).unwrap_or_else(|_| Uuid::new_v4()),
            )),
            block: node.spec.pod_cidr.parse().ok()?,
            disk_gib: disk_gib.unwrap_or(DISK_GIB),
            machine,
            taken: Arc::default(),
            shares: watch::Sender::default(),
            again: Arc::default(),
            end: CancellationToken::new(),
        };
        tokio::spawn(worker.clone().run(context.clone(), up));
        Some(worker)
    }

    /// The node's object is gone: so is its machine soon.
    pub(crate) fn end(&self) {
        self.end.cancel();
    }

    /// Somebody else wrote over its state.
    pub(crate) fn say_again(&self) {
        self.again.notify_one();
    }

    /// By what its machine is known.
    pub(crate) fn identity(&self) -> Identity {
        let boot = *self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        Identity { system: Uuid::try_parse(&self.uid).unwrap_or_default(), boot }
    }

    /// Its machine, if it runs.
    pub(crate) fn machine(&self) -> Up {
        self.machine.borrow().clone()
    }

    /// Its machine, once it runs.
    ///
    /// # Errors
    /// When the node goes before.
    pub(crate) async fn ready(&self) -> anyhow::Result<Arc<dyn NodeMachine>> {
        let mut machine = self.machine.clone();
        let up = machine.wait_for(Option::is_some).await.ok().and_then(|up| up.clone());
        up.ok_or_else(|| anyhow::anyhow!("node {} is gone", self.name))
    }

    /// The address of a pod: the node's own, the one it has, or the next free one. None when there is none left.
    pub(crate) fn address_for(&self, pod: &Pod, known: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        if pod.spec.host_network {
            return Some(self.address);
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = &pod.metadata.uid;
        let address = known.or_else(|| taken.get(uid).copied()).or_else(|| {
            let mut free = self.block.hosts().filter(|address| *address != self.address);
            free.find(|address| !taken.values().any(|other| other == address))
        })?;
        taken.insert(uid.clone(), address);
        Some(address)
    }

    /// A pod's place on it.
    pub(crate) fn lodging(&self, pod: &Pod, address: Ipv4Addr) -> Lodging {
        let node = self.address;
        let ports = convert::published(&pod.spec, node);
        Lodging { uid: pod.metadata.uid.clone(), address, host_network: pod.spec.host_network, node, ports }
    }

    /// Allots to a pod's containers what they want, as far as other pods leave room. One pod at a time.
    pub(crate) fn settle(&self, pod: &Arc<Pod>, observed: &mut Observed, now: Timestamp) -> Vec<Reason> {
        let (uid, mut told) = (&pod.metadata.uid, Vec::new());
        let capacity = Amounts::of(&self.allocatable());
        self.shares.send_if_modified(|shares| {
            let mut others = Amounts::default();
            shares.iter().filter(|(other, _)| *other != uid).for_each(|(_, share)| others.add(share, 1));
            told = resize::settle(pod, observed, &Room { capacity, others, machine: None }, now);
            let share = resources::requested(&resize::allotted(pod, observed).spec);
            // A pod that has ended or goes without a part of it, or was not taken in, has nothing of it.
            let is_over = pod.metadata.is_deleting()
                && !matches!(observed.machine, MachineState::Up { .. } | MachineState::Destroying);
            if is_over || pod.is_terminal() || observed.rejected.is_some() {
                return shares.remove(uid).is_some();
            }
            shares.insert(uid.clone(), share.clone()) != Some(share)
        });
        told
    }

    /// A pod is gone: its address is free, and what it had of the node.
    pub(crate) fn release(&self, uid: &str) {
        self.shares.send_if_modified(|shares| shares.remove(uid).is_some());
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// What pods may have of it.
    pub(crate) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.instance.allocatable(self.disk_gib)
    }

    async fn run(self, context: Arc<Context>, up: watch::Sender<Up>) {
        let mut delay = RETRY_FIRST;
        let mut adopted = up.borrow().clone();
        while !self.end.is_cancelled() {
            let machine = match adopted.take() {
                Some(machine) => Ok(machine),
                None => self.make(&context).await,
            };
            let cause = match machine {
                Ok(machine) => {
                    up.send_replace(Some(machine.clone()));
                    let Some(cause) = self.live(&context, &machine).await else { break };
                    up.send_replace(None);
                    delay = RETRY_FIRST;
                    cause
                }
                Err(error) => format!("{error:#}"),
            };
            self.say(&context, WorkerState::NotReady, &cause).await;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.end.cancelled() => break,
            }
            delay = (delay * 2).min(RETRY_MAX);
        }
        let machine = up.send_replace(None);
        if let Some(machine) = machine
            && let Err(error) = machine.destroy().await
        {
            tracing::error!(node = self.name, error = format!("{error:#}"), "a node's machine cannot be removed");
        }
    }

    /// Says that the node is ready until its machine ends; none when the node ends first.
    async fn live(&self, context: &Context, machine: &Arc<dyn NodeMachine>) -> Option<String> {
        loop {
            self.say(context, WorkerState::Ready, "the node's machine answers").await;
            context.node_came_up.notify_one();
            tokio::select! {
                cause = machine.exited() => return Some(cause),
                () = self.end.cancelled() => return None,
                () = self.again.notified() => {}
            }
        }
    }

    async fn make(&self, context: &Context) -> anyhow::Result<Arc<dyn NodeMachine>> {
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = Uuid::new_v4();
        self.say(context, WorkerState::Starting, "the node's machine is being made").await;
        let request = NodeRequest {
            id: machine_id(&self.uid),
            vcpu_count: self.instance.vcpu_count,
            memory_bytes: self.instance.memory_bytes(),
            address: self.address,
            hostname: self.name.clone(),
            disk_bytes: self.disk_gib << 30,
        };
        context.drivers.start_node(request).await
    }

    /// Writes the node's status, and tells of it as an event.
    async fn say(&self, context: &Context, state: WorkerState, message: &str) {
        let status = worker_status(self, &context.drivers.facts(), state, message, Timestamp::now());
        let uri = format!("/api/v1/nodes/{}/status", self.name);
        if let Err(error) = context.api.patch(&uri, &status).await {
            tracing::error!(node = self.name, %error, "a node's status was not written");
        }
        let (type_, reason) = match state {
            WorkerState::Ready => (EventType::Normal, "NodeReady"),
            WorkerState::Starting => (EventType::Normal, "Starting"),
            WorkerState::NotReady => (EventType::Warning, "NodeNotReady"),
        };
        let reason = Reason { type_, reason, message: format!("Node {}: {message}", self.name) };
        context.api.node_event(&self.name, &self.uid, &reason).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker() -> Worker {
        Worker {
            name: "ip-10-0-0-33.local.compute.internal".into(),
            uid: "n".into(),
            address: Ipv4Addr::new(10, 0, 0, 33),
            instance: instances::find("t3.medium").unwrap(),
            boot: Arc::default(),
            block: "10.0.0.32/27".parse().unwrap(),
            disk_gib: 20,
            machine: watch::channel(None).1,
            taken: Arc::default(),
            shares: watch::Sender::default(),
            again: Arc::default(),
            end: CancellationToken::new(),
        }
    }

    #[test]
    fn pods_have_addresses_of_the_nodes_block() {
        let worker = worker();
        let pod = |uid: &str, host_network: bool| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"hostNetwork": host_network}})).unwrap()
        };
        let check = |uid: &str, known: Option<&str>, expected: Option<&str>| {
            let known = known.map(|text| text.parse().unwrap());
            let found = worker.address_for(&pod(uid, false), known).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{uid}");
        };
        check("a", None, Some("10.0.0.34"));
        check("b", None, Some("10.0.0.35"));
        check("a", None, Some("10.0.0.34"));
        check("c", Some("10.0.0.36"), Some("10.0.0.36"));
        check("d", None, Some("10.0.0.37"));
        worker.release("b");
        check("e", None, Some("10.0.0.35"));
        for number in 0..25 {
            worker.address_for(&pod(&format!("more-{number}"), false), None);
        }
        check("late", None, None);
        assert_eq!(worker.address_for(&pod("h", true), None), Some(worker.address));
    }

    #[test]
    fn nodes_keep_something_for_themselves() {
        let allocatable = worker().allocatable();
        assert_eq!(allocatable["cpu"], "1930m".parse().unwrap());
        assert_eq!(allocatable["memory"], "3554Mi".parse().unwrap());
        assert_eq!(allocatable["pods"], "17".parse().unwrap());
    }
}
