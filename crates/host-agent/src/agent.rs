//! The agent of one host: registers it, watches for pods that are bound to its nodes, and keeps an actor for each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::StreamExt;
use isopod_planner::pod::Observed;
use isopod_planner::pod::admit::Rejection;
use isopod_planner::sizing::Tier;
use isopod_planner::{Reason, fargate};
use isopod_types::Object;
use isopod_types::names::HOST_LABEL;
use isopod_types::node::{ConfigMap, Node, Secret};
use isopod_types::own::FargateSettings;
use isopod_types::pod::Pod;
use kube::Client;
use kube::api::{Api as KubeApi, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Face, Handle, Home, Message, place, state_path};
use crate::admission::Admission;
use crate::api::Api;
use crate::drivers::{Adopted, Drivers, Lodging, Machine};
use crate::exclusive::Exclusive;
use crate::kept::Kept;
use crate::logs::Logs;
use crate::worker::{self, Worker};
use crate::{disks, leases, node};

/// What the agent needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this host.
    pub host: String,
    /// Address at which this host is reached.
    pub address: String,
    /// Where the agent keeps pods and logs.
    pub directory: PathBuf,
    /// Address of the cluster's DNS.
    pub cluster_dns: String,
    /// How much more than the host has may be promised.
    pub fargate: FargateSettings,
}

/// What all actors share.
pub(crate) struct Context {
    pub(crate) api: Api,
    pub(crate) drivers: Box<dyn Drivers>,
    pub(crate) logs: Logs,
    pub(crate) host: String,
    pub(crate) directory: PathBuf,
    pub(crate) cluster_dns: String,
    /// Told when a worker node has come up.
    pub(crate) node_came_up: Notify,
    /// Which machines have which disks of volumes.
    pub(crate) disks: Exclusive,
    /// What volumes of running pods are of.
    pub(crate) config_maps: Kept<ConfigMap>,
    pub(crate) secrets: Kept<Secret>,
    actors: Mutex<BTreeMap<String, Handle>>,
    /// Worker nodes of this host by name.
    workers: Mutex<BTreeMap<String, Worker>>,
    /// UID of the Host object.
    host_uid: Mutex<String>,
}

impl Context {
    fn actors(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Handle>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker node of this name, if it is of this host.
    pub(crate) fn worker(&self, name: &str) -> Option<Worker> {
        self.workers().get(name).cloned()
    }

    /// Worker nodes whose machines run.
    pub(crate) fn nodes_up(&self) -> Vec<String> {
        self.workers().values().filter(|worker| worker.machine().is_some()).map(|worker| worker.name.clone()).collect()
    }

    /// Kind and UID of the object that a lease goes with.
    pub(crate) fn lease_owner(&self, holder: &str) -> Option<(&'static str, String)> {
        if holder == self.host {
            let uid = self.host_uid.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Some(("Host", uid)).filter(|(_, uid)| !uid.is_empty());
        }
        self.workers().get(holder).map(|worker| ("Node", worker.uid.clone()))
    }

    /// An actor has ended.
    pub(crate) fn forget(&self, uid: &str) {
        self.actors().remove(uid);
    }

    /// What others may see of a pod.
    pub(crate) fn face(&self, uid: &str) -> Option<Face> {
        let face = self.actors().get(uid).map(|handle| handle.face.clone())?;
        let face = face.read().unwrap_or_else(PoisonError::into_inner).clone();
        Some(face)
    }

    /// The pods of a node that run here.
    pub(crate) fn of_node(&self, node: &str) -> Vec<Face> {
        let handles: Vec<Handle> = self.actors().values().cloned().collect();
        let faces = handles.iter().map(|handle| handle.face.read().unwrap_or_else(PoisonError::into_inner).clone());
        faces.filter(|face| face.pod.spec.node_name == node).collect()
    }

    /// The pod of this name that runs here.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Face> {
        let handles: Vec<Handle> = self.actors().values().cloned().collect();
        let faces = handles.iter().map(|handle| handle.face.read().unwrap_or_else(PoisonError::into_inner).clone());
        let named = |face: &Face| face.pod.metadata.namespace == namespace && face.pod.metadata.name == name;
        faces.into_iter().filter(named).max_by_key(|face| face.pod.metadata.creation_timestamp)
    }
}

/// The agent of one host. Clones are handles on the same one.
#[derive(Clone)]
pub struct HostAgent {
    pub(crate) context: Arc<Context>,
}

impl HostAgent {
    /// Registers the host and adopts what an earlier process left running.
    ///
    /// # Errors
    /// When the API cannot be reached or microVMs cannot be looked for.
    pub async fn start(
        client: Client,
        drivers: Box<dyn Drivers>,
        settings: Settings,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let directory = settings.directory.clone();
        std::fs::create_dir_all(directory.join("pods")).with_context(|| format!("{}", directory.display()))?;
        let context = Arc::new(Context {
            api: Api::new(client.clone(), settings.host.clone()),
            drivers,
            logs: Logs::new(directory.join("logs")),
            host: settings.host.clone(),
            directory,
            cluster_dns: settings.cluster_dns.clone(),
            node_came_up: Notify::new(),
            disks: Exclusive::default(),
            config_maps: Kept::new(client.clone(), |map: &ConfigMap| map.immutable == Some(true)),
            secrets: Kept::new(client.clone(), |secret: &Secret| secret.immutable == Some(true)),
            actors: Mutex::default(),
            workers: Mutex::default(),
            host_uid: Mutex::default(),
        });
        let adopted = context.drivers.adopt().await?;
        for (id, node) in &adopted.nodes {
            for (disk, pods) in node.volumes().await {
                pods.iter().for_each(|pod| drop(context.disks.take(&disk, id, pod)));
            }
        }
        register(&context, &settings).await?;
        let agent = Self { context };
        tokio::spawn(leases::run(agent.context.clone(), stop.clone()));
        tokio::spawn(agent.clone().watch(adopted, stop));
        Ok(agent)
    }

    async fn watch(self, adopted: Adopted, stop: CancellationToken) {
        let mut supervisor = Supervisor {
            context: self.context.clone(),
            adopted,
            nodes: BTreeSet::new(),
            listed_nodes: None,
            pods: BTreeSet::new(),
            early: BTreeMap::new(),
            unseen: Vec::new(),
            admission: Admission::default(),
            first: true,
        };
        let client = self.context.api.client().clone();
        let all = |kind, plural| KubeApi::<DynamicObject>::all_with(client.clone(), &resource(kind, plural));
        let (nodes, pods, volumes) =
            (all("Node", "nodes"), all("Pod", "pods"), all("PersistentVolume", "persistentvolumes"));
        let config = || watcher::Config::default().streaming_lists();
        let mine = config().labels(&format!("{HOST_LABEL}={}", self.context.host));
        let mut nodes = watcher::watcher(nodes, mine).default_backoff().boxed();
        let mut pods = watcher::watcher(pods, config()).default_backoff().boxed();
        let mut volumes = watcher::watcher(volumes, config()).default_backoff().boxed();
        // Nodes first: pods are known by them.
        let mut nodes_known = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = nodes.next() => match event {
                    Ok(event) => nodes_known |= supervisor.node(event).await,
                    Err(error) => tracing::warn!(%error, "node watch broke; it begins anew"),
                },
                Some(event) = pods.next(), if nodes_known => match event {
                    Ok(event) => supervisor.pod(event).await,
                    Err(error) => tracing::warn!(%error, "pod watch broke; it begins anew"),
                },
                Some(event) = volumes.next() => match event {
                    Ok(Event::Apply(volume) | Event::InitApply(volume)) => {
                        parse(volume).into_iter().for_each(|volume| disks::changed(&self.context, volume));
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "volume watch broke; it begins anew"),
                },
            }
        }
    }
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

async fn register(context: &Context, settings: &Settings) -> anyhow::Result<()> {
    let name = &settings.host;
    context.api.create("/apis/isopod.dev/v1alpha1/hosts", &node::host(name, &settings.address)).await?;
    let status = node::host_status(&context.drivers.facts(), &settings.fargate);
    let host = context.api.patch(&format!("/apis/isopod.dev/v1alpha1/hosts/{name}/status"), &status).await?;
    let uid = host.and_then(|host| host["metadata"]["uid"].as_str().map(str::to_owned)).unwrap_or_default();
    *context.host_uid.lock().unwrap_or_else(PoisonError::into_inner) = uid;
    Ok(())
}

/// Keeps one actor per pod of this host.
struct Supervisor {
    context: Arc<Context>,
    adopted: Adopted,
    /// Nodes of this host.
    nodes: BTreeSet<String>,
    /// Names seen in the current list of nodes, while one is under way.
    listed_nodes: Option<BTreeSet<String>>,
    /// UIDs seen in the current list, while one is under way.
    pods: BTreeSet<String>,
    /// Pods that were seen before their nodes, by UID.
    early: BTreeMap<String, Pod>,
    /// New pods of the current list, until it is known which were there before them.
    unseen: Vec<Pod>,
    admission: Admission,
    first: bool,
}

impl Supervisor {
    /// Takes in a change of a node; true when all were seen.
    async fn node(&mut self, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                if let Some(node) = parse::<Node>(node) {
                    self.node_seen(&node).await;
                }
            }
            Event::Delete(node) => self.node_gone(&node.metadata.name.unwrap_or_default()),
            Event::Init => self.listed_nodes = Some(BTreeSet::new()),
            Event::InitDone => {
                let listed = self.listed_nodes.take().unwrap_or_default();
                let gone: Vec<String> = self.nodes.difference(&listed).cloned().collect();
                gone.iter().for_each(|name| self.node_gone(name));
                self.end_unclaimed_nodes().await;
                return true;
            }
        }
        false
    }

    async fn node_seen(&mut self, node: &Node) {
        let name = &node.metadata.name;
        if let Some(listed) = &mut self.listed_nodes {
            listed.insert(name.clone());
        }
        let known = self.context.workers().get(name).cloned();
        if known.as_ref().is_none_or(|worker| worker.uid != node.metadata.uid) {
            if let Some(other) = known {
                other.end();
            }
            let adopted = self.adopted.nodes.remove(&worker::machine_id(&node.metadata.uid));
            if let Some(worker) = Worker::start(&self.context, node, adopted) {
                self.context.workers().insert(name.clone(), worker);
            }
        }
        if let Some(worker) = self.context.worker(name) {
            self.admission.node(node, worker.allocatable());
        }
        if node.status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "Unknown") {
            self.say_again(name).await;
        }
        if self.nodes.insert(name.clone()) {
            let mut mine: Vec<Pod> = self.early.values().filter(|pod| pod.spec.node_name == *name).cloned().collect();
            mine.sort_by_key(|pod| pod.metadata.creation_timestamp);
            for pod in mine {
                self.early.remove(&pod.metadata.uid);
                self.seen(pod).await;
            }
        }
    }

    /// Somebody who heard nothing of this host for a while says that a node's state is unknown. It is not.
    async fn say_again(&self, node: &str) {
        if let Some(worker) = self.context.workers().get(node) {
            worker.say_again();
        }
        let of_node = self.context.of_node(node);
        for face in of_node {
            self.tell(&face.pod.metadata.uid, Message::NodeUnknown).await;
        }
    }

    fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
        self.admission.node_gone(name);
        if let Some(worker) = self.context.workers().remove(name) {
            worker.end();
        }
    }

    /// Machines of nodes whose objects went while the agent was away.
    async fn end_unclaimed_nodes(&mut self) {
        for (id, machine) in std::mem::take(&mut self.adopted.nodes) {
            tracing::info!(id, "ending the machine of a node that is gone");
            let volumes = machine.volumes().await;
            if let Err(error) = machine.destroy().await {
                tracing::error!(error = format!("{error:#}"), "a node's machine cannot be removed");
                continue;
            }
            volumes.values().flatten().for_each(|pod| self.context.disks.release(pod));
        }
    }

    async fn pod(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => {
                self.pods.clear();
                self.unseen.clear();
            }
            Event::InitApply(pod) => {
                if let Some(pod) = parse::<Pod>(pod) {
                    self.pods.insert(pod.metadata.uid.clone());
                    match self.is_new(&pod) {
                        true => self.unseen.push(pod),
                        false => self.seen(pod).await,
                    }
                }
            }
            Event::InitDone => self.listed().await,
            Event::Apply(pod) => {
                if let Some(pod) = parse::<Pod>(pod) {
                    self.seen(pod).await;
                }
            }
            Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                self.early.remove(&uid);
                self.admission.forget(pod.data["spec"]["nodeName"].as_str().unwrap_or_default(), &uid);
                self.tell(&uid, Message::Gone).await;
            }
        }
    }

    /// Every pod was seen: what is not among them is gone, and machines that nobody claimed end.
    async fn listed(&mut self) {
        let gone: Vec<String> = self.context.actors().keys().filter(|uid| !self.pods.contains(*uid)).cloned().collect();
        for uid in gone {
            self.tell(&uid, Message::Gone).await;
        }
        self.admission.retain(|uid| self.pods.contains(uid));
        let mut unseen = std::mem::take(&mut self.unseen);
        unseen.sort_by_key(|pod| pod.metadata.creation_timestamp);
        for pod in unseen {
            self.seen(pod).await;
        }
        if std::mem::take(&mut self.first) {
            self.clear_away().await;
        }
    }

    async fn clear_away(&mut self) {
        for (id, machine) in std::mem::take(&mut self.adopted.pods) {
            tracing::info!(id, "ending a microVM whose pod is gone");
            if let Err(error) = machine.destroy().await {
                tracing::error!(error = format!("{error:#}"), "a microVM cannot be removed");
            }
        }
        for entry in std::fs::read_dir(self.context.directory.join("pods")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let uid = name.split('.').next().unwrap_or_default().to_owned();
            if !self.pods.contains(&uid) {
                self.forgotten(&uid, &entry.path()).await;
            }
        }
    }

    /// A pod was deleted while the agent was away: its bill is closed, its files go.
    async fn forgotten(&self, uid: &str, path: &std::path::Path) {
        let observed: Option<Observed> = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        match observed.as_ref().and_then(|observed| observed.address) {
            Some(address) => self.evict_forgotten(uid, address).await,
            None => self.close_forgotten(uid, observed.map_or(1, |observed| observed.machine_count.max(1))).await,
        }
        self.context.logs.remove(uid);
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "pod state cannot be removed");
        }
    }

    async fn close_forgotten(&self, uid: &str, machines: u32) {
        let uri = format!("/apis/isopod.dev/v1alpha1/usagerecords/{}", node::usage_name(uid, machines));
        if let Err(error) = self.context.api.patch(&uri, &node::usage_end(jiff::Timestamp::now())).await {
            tracing::error!(uid, %error, "usage record not closed");
        }
    }

    /// Takes a pod that is gone from the node that still has it.
    async fn evict_forgotten(&self, uid: &str, address: Ipv4Addr) {
        let machines: Vec<_> = self.context.workers().values().filter_map(Worker::machine).collect();
        for machine in machines.into_iter().filter(|machine| machine.pods().iter().any(|known| known == uid)) {
            let lodging =
                Lodging { uid: uid.to_owned(), address, host_network: false, node: address, ports: Vec::new() };
            let taken = async { machine.lodge(lodging).await?.destroy().await };
            match taken.await {
                Ok(()) => self.context.disks.release(uid),
                Err(error) => {
                    tracing::error!(
                        uid,
                        error = format!("{error:#}"),
                        "a pod that is gone cannot be taken from its node"
                    );
                }
            }
        }
    }

    async fn tell(&self, uid: &str, message: Message) {
        let handle = self.context.actors().get(uid).cloned();
        if let Some(handle) = handle {
            // An actor that has ended needs no news.
            drop(handle.inbox.send(message).await);
        }
    }

    async fn seen(&mut self, pod: Pod) {
        let uid = pod.metadata.uid.clone();
        if self.context.actors().contains_key(&uid) {
            self.admission.change(&pod);
            return self.tell(&uid, Message::Update(Box::new(pod))).await;
        }
        if pod.spec.node_name.is_empty() {
            return;
        }
        if !self.nodes.contains(&pod.spec.node_name) {
            // The watches of nodes and pods are not in step.
            self.early.insert(uid, pod);
            return;
        }
        let mut observed = self.recall(&uid);
        if observed.seen_at.is_none() && !pod.is_terminal() && !pod.metadata.is_deleting() {
            observed.rejected = self.admit(&pod).await;
        } else if observed.rejected.is_none() {
            self.admission.keep(&pod);
        }
        let worker = self.context.worker(&pod.spec.node_name);
        let (home, machine) = match worker {
            _ if observed.rejected.is_some() => (nowhere(&pod, worker), None),
            Some(worker) => (self.at_worker(&worker, &pod, &observed).await, lodged(&worker, &pod, &observed).await),
            None => (place(&pod), self.adopted.pods.remove(&format!("{uid}-{}", observed.machine_count))),
        };
        if let Some(home) = home {
            let handle = Actor::start(self.context.clone(), pod, home, observed, machine);
            self.context.actors().insert(uid, handle);
        }
    }

    /// Whether this agent has never heard of a pod on a node of many.
    fn is_new(&self, pod: &Pod) -> bool {
        let known = self.context.actors().contains_key(&pod.metadata.uid);
        !known && self.context.worker(&pod.spec.node_name).is_some() && self.recall(&pod.metadata.uid).seen_at.is_none()
    }

    /// Takes a new pod in, or says why its node does not.
    async fn admit(&mut self, pod: &Pod) -> Option<Rejection> {
        let is_of_many = self.context.worker(&pod.spec.node_name).is_some();
        let rejection = match is_of_many {
            true => self.admission.admit(pod, &self.context.api).await,
            false => place(pod).is_none().then(Rejection::of_single),
        }?;
        self.context.api.event(pod, None, &rejection.event()).await;
        Some(rejection)
    }

    async fn at_worker(&self, worker: &Worker, pod: &Pod, observed: &Observed) -> Option<(Home, Ipv4Addr)> {
        let address = worker.address_for(pod, observed.address);
        if address.is_none() {
            let text = format!("failed to assign an IP address to container: node {} has none left", worker.name);
            self.context.api.event(pod, None, &Reason::warning("FailedCreatePodSandBox", text)).await;
        }
        Some((Home::Node(worker.clone()), address?))
    }

    fn recall(&self, uid: &str) -> Observed {
        let path = state_path(&self.context, uid);
        std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// A place for the actor of a pod that nothing is ever made for.
fn nowhere(pod: &Pod, worker: Option<Worker>) -> Option<(Home, Ipv4Addr)> {
    let address = fargate::host_address(&pod.spec.node_name).or_else(|| fargate::node_address(&pod.spec.node_name));
    let home = worker.map_or(Home::Fargate(Tier { vcpu_millis: 0, memory_mib: 0 }), Home::Node);
    Some((home, address?))
}

/// The part of a node that a pod has had since before this process.
async fn lodged(worker: &Worker, pod: &Pod, observed: &Observed) -> Option<Arc<dyn Machine>> {
    let machine = worker.machine().filter(|machine| machine.pods().contains(&pod.metadata.uid))?;
    match machine.lodge(worker.lodging(pod, observed.address?)).await {
        Ok(machine) => Some(machine),
        Err(error) => {
            tracing::error!(pod = pod.metadata.name, error = format!("{error:#}"), "a pod cannot be taken up again");
            None
        }
    }
}

pub(crate) fn parse<K: Object>(object: DynamicObject) -> Option<K> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut document = object.data;
    document["metadata"] = serde_json::to_value(object.metadata).ok()?;
    match serde_json::from_value(document) {
        Ok(pod) => Some(pod),
        Err(error) => {
            tracing::error!(kind = K::KIND, name, %error, "an object cannot be read");
            None
        }
    }
}
