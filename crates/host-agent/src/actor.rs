//! One task per pod: it alone changes what is known about the pod, decides, and starts deeds. Deeds run beside it and come
//! back as facts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use isopod_planner::pod::resize::{self, Room};
use isopod_planner::pod::status::{Addresses, render};
use isopod_planner::pod::{Action, Fact, Machine as MachineState, Observed, Run, Setup, decide};
use isopod_planner::scheduler::resources::Resources as Amounts;
use isopod_planner::sizing::Tier;
use isopod_planner::{Reason, fargate};
use isopod_types::names::CAPACITY_PROVISIONED;
use isopod_types::pod::Pod;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::agent::Context;
use crate::deeds;
use crate::drivers::{LocalImage, Machine};
use crate::follow::Follower;
use crate::node::NodeState;
use crate::report::{self, Report, Reporter};
use crate::sources::Fetched;
use crate::worker::{self, Shares, Worker};

/// Facts and updates that wait for the actor.
pub(crate) const INBOX: usize = 256;

/// Something for the actor.
pub(crate) enum Message {
    /// The pod as the API has it now.
    Update(Box<Pod>),
    /// The pod's object is gone.
    Gone,
    /// Somebody says that nothing is known of the pod's node.
    NodeUnknown,
    /// Something happened.
    Fact(Fact),
    /// A machine is there for the pod; comes before its `MachineUp`.
    Machine(Arc<dyn Machine>),
    /// An image is there; comes before its `ImageReady`.
    Image(String, LocalImage),
}

/// What others may see of a pod: its machine and the newest run of each container.
#[derive(Clone, Default)]
pub(crate) struct Face {
    pub(crate) machine: Option<Arc<dyn Machine>>,
    /// Starts and whether it runs, by container.
    pub(crate) runs: BTreeMap<String, (u32, bool)>,
    pub(crate) pod: Arc<Pod>,
}

/// A pod's actor as others see it.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) face: Arc<RwLock<Face>>,
}

/// Where a pod runs.
#[derive(Clone)]
pub(crate) enum Home {
    /// In a microVM of its own, which is its node.
    Fargate(Tier),
    /// On a node of many.
    Node(Worker),
}

/// Everything deeds need.
#[derive(Clone)]
pub(crate) struct Deed {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) home: Home,
    pub(crate) address: Ipv4Addr,
    pub(crate) machine: Option<Arc<dyn Machine>>,
    pub(crate) machine_count: u32,
    pub(crate) images: BTreeMap<String, LocalImage>,
    pub(crate) sources: Arc<Fetched>,
    pub(crate) inbox: mpsc::Sender<Message>,
}

impl Deed {
    /// The machine that the pod has or is part of.
    pub(crate) fn machine_id(&self) -> String {
        match &self.home {
            Home::Fargate(_) => self.pod.metadata.uid.clone(),
            Home::Node(worker) => worker::machine_id(&worker.uid),
        }
    }

    pub(crate) async fn tell(&self, message: Message) {
        // An actor that has ended needs no facts.
        drop(self.inbox.send(message).await);
    }

    pub(crate) async fn fact(&self, fact: Fact) {
        self.tell(Message::Fact(fact)).await;
    }

    pub(crate) async fn event(&self, container: Option<&str>, reason: Reason) {
        self.context.api.event(&self.pod, container, &reason).await;
    }
}

/// The task.
pub(crate) struct Actor {
    /// Its pod has what was allotted to its containers.
    deed: Deed,
    /// The pod as the API has it.
    wanted: Arc<Pod>,
    /// What pods have of a node of many.
    shares: Option<watch::Receiver<Shares>>,
    observed: Observed,
    face: Arc<RwLock<Face>>,
    messages: mpsc::Receiver<Message>,
    saved: Vec<u8>,
    reporter: Reporter,
    /// Keeps the files of its volumes up to date while it runs.
    follower: Option<Follower>,
    node_lost: u64,
    gone: bool,
}

/// Where what is known about a pod is kept.
pub(crate) fn state_path(context: &Context, uid: &str) -> PathBuf {
    context.directory.join("pods").join(format!("{uid}.json"))
}

/// Size and address of a Fargate pod, from what the scheduler wrote.
pub(crate) fn place(pod: &Pod) -> Option<(Home, Ipv4Addr)> {
    let tier = Tier::parse(pod.metadata.annotations.get(CAPACITY_PROVISIONED)?)?;
    Some((Home::Fargate(tier), fargate::node_address(&pod.spec.node_name)?))
}

impl Actor {
    /// Starts the task for a pod; `adopted` is its machine if an earlier process left one.
    pub(crate) fn start(
        context: Arc<Context>,
        pod: Pod,
        (home, address): (Home, Ipv4Addr),
        mut observed: Observed,
        adopted: Option<Arc<dyn Machine>>,
    ) -> Handle {
        observed.address = matches!(home, Home::Node(_)).then_some(address);
        let (inbox, messages) = mpsc::channel(INBOX);
        let face: Arc<RwLock<Face>> = Arc::default();
        let handle = Handle { inbox: inbox.clone(), face: face.clone() };
        let wanted = Arc::new(pod);
        let shares = if let Home::Node(worker) = &home { Some(worker.shares.subscribe()) } else { None };
        let deed = Deed {
            context,
            pod: wanted.clone(),
            home,
            address,
            machine: adopted.clone(),
            machine_count: observed.machine_count,
            images: BTreeMap::new(),
            sources: Arc::default(),
            inbox,
        };
        let reporter = report::start(deed.clone());
        let (saved, follower) = (Vec::new(), None);
        let mut actor = Self {
            deed,
            wanted,
            shares,
            observed,
            face,
            messages,
            saved,
            reporter,
            follower,
            node_lost: 0,
            gone: false,
        };
        tokio::spawn(async move {
            actor.recover(adopted).await;
            actor.run().await;
        });
        handle
    }

    /// Brings what was known in line with what is there after a restart.
    async fn recover(&mut self, adopted: Option<Arc<dyn Machine>>) {
        self.observed.seen_at.get_or_insert_with(Timestamp::now);
        self.observed.after_restart();
        match adopted {
            Some(machine) => self.adopt(machine).await,
            None if !matches!(
                self.observed.machine,
                MachineState::None | MachineState::Ended { .. } | MachineState::Failed { .. }
            ) =>
            {
                let cause = "it was gone when the host agent came back".to_owned();
                deeds::close_usage(&self.deed).await;
                self.observed.apply(Fact::MachineEnded { cause }, Timestamp::now());
            }
            None => {}
        }
        // Images are looked up anew: their disks are on this host, their configuration is not kept here.
        self.observed.images.clear();
    }

    async fn adopt(&mut self, machine: Arc<dyn Machine>) {
        let hello = machine.hello();
        tracing::info!(pod = %self.deed.pod.metadata.name, containers = hello.containers.len(), "adopted a microVM");
        self.observed.machine = MachineState::Up { start_path: machine.start_path().into() };
        if let Err(error) = machine.readmit(self.deed.address).await {
            tracing::error!(error = format!("{error:#}"), "an adopted microVM has no network");
        }
        for fact in deeds::facts_of_hello(&hello, &self.observed) {
            self.observed.apply(fact, Timestamp::now());
        }
        if hello.pod_uid == self.deed.pod.metadata.uid {
            self.observed.setup = Setup::Done;
        }
        deeds::watch_machine(&self.deed, machine.clone(), hello.last_event_sequence);
        for container in &hello.containers {
            deeds::pump_logs(&self.deed, machine.clone(), &container.id);
        }
    }

    async fn run(&mut self) {
        loop {
            let wake_at = self.step();
            if self.gone && self.is_over() {
                return self.finish();
            }
            let deferred = self.observed.resize.pending.is_some();
            tokio::select! {
                () = changed(self.shares.as_mut().filter(|_| deferred)) => {}
                message = self.messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = sleep_until(wake_at) => {}
            }
            while let Ok(message) = self.messages.try_recv() {
                self.take(message);
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.observed.machine, MachineState::None | MachineState::Ended { .. } | MachineState::Failed { .. })
    }

    /// Forgets the pod.
    fn finish(&mut self) {
        let uid = self.deed.pod.metadata.uid.clone();
        self.deed.context.logs.remove(&uid);
        let path = state_path(&self.deed.context, &uid);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "pod state cannot be removed");
        }
        self.deed.context.forget(&uid);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Update(pod) => self.wanted = Arc::new(*pod),
            Message::NodeUnknown => self.node_lost += 1,
            Message::Gone => {
                // Nobody waits for a grace period any more.
                let mut pod = (*self.wanted).clone();
                pod.metadata.deletion_timestamp = Some(Timestamp::now());
                self.wanted = Arc::new(pod);
                self.gone = true;
            }
            Message::Fact(fact) => {
                if matches!(fact, Fact::MachineEnded { .. }) {
                    self.deed.machine = None;
                }
                self.observed.apply(fact, Timestamp::now());
            }
            Message::Machine(machine) => self.deed.machine = Some(machine),
            Message::Image(name, image) => drop(self.deed.images.insert(name, image)),
        }
    }

    /// Decides, does, and reports. Returns when time alone calls for the next step.
    fn step(&mut self) -> Option<Timestamp> {
        self.settle();
        let decision = decide(&self.deed.pod, &self.observed, Timestamp::now());
        let mut delete = false;
        for action in decision.actions {
            self.observed.begin(&action);
            self.deed.machine_count = self.observed.machine_count;
            if action == Action::DeleteObject {
                delete = true;
            } else {
                deeds::begin(self.deed.clone(), action);
            }
        }
        self.follow();
        self.show_face();
        self.save();
        self.report(delete);
        decision.wake_at
    }

    /// Files of volumes follow what they are of from when the guest has them.
    fn follow(&mut self) {
        match &self.follower {
            _ if self.observed.setup != Setup::Done => self.follower = None,
            Some(follower) => follower.see(&self.deed.pod),
            None => self.follower = Follower::start(&self.deed),
        }
    }

    /// Allots to the containers what they want, as far as there is room.
    fn settle(&mut self) {
        let now = Timestamp::now();
        let told = match &self.deed.home {
            Home::Fargate(tier) => {
                let capacity = Amounts {
                    cpu_milli: tier.vcpu_millis,
                    memory_bytes: i64::try_from(tier.memory_bytes()).unwrap_or(i64::MAX),
                    ..Amounts::default()
                };
                let room = Room { capacity, others: Amounts::default(), machine: Some(tier.to_string()) };
                resize::settle(&self.wanted, &mut self.observed, &room, now)
            }
            Home::Node(worker) => worker.settle(&self.wanted, &mut self.observed, now),
        };
        self.deed.pod = resize::allotted(&self.wanted, &self.observed);
        for reason in told {
            let deed = self.deed.clone();
            tokio::spawn(async move { deed.event(None, reason).await });
        }
    }

    fn show_face(&self) {
        let runs = self.observed.containers.iter();
        let runs =
            runs.map(|(name, runs)| (name.clone(), (runs.starts, matches!(runs.run, Run::Running { .. })))).collect();
        let face = Face { machine: self.deed.machine.clone(), runs, pod: self.deed.pod.clone() };
        *self.face.write().unwrap_or_else(PoisonError::into_inner) = face;
    }

    /// Keeps what is known where the next process finds it.
    fn save(&mut self) {
        let Ok(text) = serde_json::to_vec(&self.observed) else { return };
        if text == self.saved {
            return;
        }
        let path = state_path(&self.deed.context, &self.deed.pod.metadata.uid);
        let partial = path.with_extension("partial");
        let written = std::fs::write(&partial, &text).and_then(|()| std::fs::rename(&partial, &path));
        match written {
            Ok(()) => self.saved = text,
            Err(error) => tracing::error!(path = %path.display(), %error, "pod state cannot be kept"),
        }
    }

    /// Says what the API should know now.
    fn report(&self, delete: bool) {
        let has_address = !matches!(self.observed.machine, MachineState::None | MachineState::Starting { .. });
        let address = if has_address { self.deed.address.to_string() } else { String::new() };
        let host = match &self.deed.home {
            Home::Node(worker) => worker.address.to_string(),
            Home::Fargate(_) => address.clone(),
        };
        let addresses = Addresses { pod: address, host };
        let status = match self.gone {
            true => Value::Null,
            false => render(&self.deed.pod, &self.observed, &addresses, Timestamp::now()),
        };
        let mut node = self.node_state();
        if let Home::Node(worker) = &self.deed.home {
            // The node tells of itself. A pod that has ended needs its address no more.
            if node.take() == Some(NodeState::Released) {
                worker.release(&self.deed.pod.metadata.uid);
            }
        }
        let (node_lost, machines) = (self.node_lost, self.observed.machine_count);
        self.reporter.send_replace(Report { pod: self.deed.pod.clone(), status, node, machines, node_lost, delete });
    }

    /// What the node's status should say; none while its machine is on the way out.
    fn node_state(&self) -> Option<NodeState> {
        if self.observed.rejected.is_some() {
            // The node is that of others.
            return None;
        }
        if self.gone && self.is_over() {
            return Some(NodeState::Released);
        }
        match self.observed.machine {
            MachineState::Up { .. } => Some(NodeState::Ready),
            MachineState::None | MachineState::Starting { .. } | MachineState::Failed { .. } => {
                Some(NodeState::Starting)
            }
            MachineState::Destroying => None,
            MachineState::Ended { .. } if self.wants_machine() => Some(NodeState::Starting),
            MachineState::Ended { .. } => Some(NodeState::Released),
        }
    }

    /// Whether a pod without a machine is to get one again.
    fn wants_machine(&self) -> bool {
        let decision = decide(&self.deed.pod, &self.observed, Timestamp::now());
        decision.actions.contains(&Action::StartMachine)
            || decision.wake_at.is_some() && !self.deed.pod.metadata.is_deleting() && !self.deed.pod.is_terminal()
    }
}

/// Resolves when what pods have of a node changes; without a node, never.
async fn changed(shares: Option<&mut watch::Receiver<Shares>>) {
    let is_over = match shares {
        Some(shares) => shares.changed().await.is_err(),
        None => true,
    };
    if is_over {
        std::future::pending().await
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let now = Timestamp::now();
            let left = if at <= now { Duration::ZERO } else { at.duration_since(now).unsigned_abs() };
            tokio::time::sleep(left).await;
        }
    }
}
