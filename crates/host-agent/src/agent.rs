//! The agent of one host: registers it, watches for pods that are bound to its nodes, and keeps an actor for each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::StreamExt;
use isopod_planner::pod::Observed;
use isopod_types::names::HOST_LABEL;
use isopod_types::own::FargateSettings;
use isopod_types::pod::Pod;
use kube::Client;
use kube::api::{Api as KubeApi, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Face, Handle, Message, place, state_path};
use crate::api::Api;
use crate::drivers::{Drivers, Machine};
use crate::logs::Logs;
use crate::node;

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
    actors: Mutex<BTreeMap<String, Handle>>,
}

impl Context {
    fn actors(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Handle>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Microvms that an earlier process left, by id.
type Adopted = BTreeMap<String, Arc<dyn Machine>>;

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
            api: Api::new(client, settings.host.clone()),
            drivers,
            logs: Logs::new(directory.join("logs")),
            host: settings.host.clone(),
            directory,
            cluster_dns: settings.cluster_dns.clone(),
            actors: Mutex::default(),
        });
        let adopted: Adopted = context.drivers.adopt().await?.into_iter().collect();
        register(&context, &settings).await?;
        let agent = Self { context };
        tokio::spawn(agent.clone().watch(adopted, stop));
        Ok(agent)
    }

    async fn watch(self, adopted: Adopted, stop: CancellationToken) {
        let mut supervisor = Supervisor {
            context: self.context.clone(),
            adopted,
            nodes: BTreeSet::new(),
            pods: BTreeSet::new(),
            early: BTreeMap::new(),
            first: true,
        };
        let client = self.context.api.client().clone();
        let nodes: KubeApi<PartialObjectMeta<DynamicObject>> =
            KubeApi::all_with(client.clone(), &resource("Node", "nodes"));
        let pods: KubeApi<DynamicObject> = KubeApi::all_with(client, &resource("Pod", "pods"));
        let config = || watcher::Config::default().streaming_lists();
        let mine = config().labels(&format!("{HOST_LABEL}={}", self.context.host));
        let mut nodes = watcher::watcher(nodes, mine).default_backoff().boxed();
        let mut pods = watcher::watcher(pods, config()).default_backoff().boxed();
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
    context.api.patch(&format!("/apis/isopod.dev/v1alpha1/hosts/{name}/status"), &status).await?;
    Ok(())
}

/// Keeps one actor per pod of this host.
struct Supervisor {
    context: Arc<Context>,
    adopted: Adopted,
    /// Nodes of this host.
    nodes: BTreeSet<String>,
    /// UIDs seen in the current list, while one is under way.
    pods: BTreeSet<String>,
    /// Pods that were seen before their nodes, by UID.
    early: BTreeMap<String, Pod>,
    first: bool,
}

impl Supervisor {
    /// Takes in a change of a node; true when all were seen.
    async fn node(&mut self, event: Event<PartialObjectMeta<DynamicObject>>) -> bool {
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                let name = node.metadata.name.unwrap_or_default();
                self.nodes.insert(name.clone());
                let mine: Vec<Pod> = self.early.values().filter(|pod| pod.spec.node_name == name).cloned().collect();
                for pod in mine {
                    self.early.remove(&pod.metadata.uid);
                    self.seen(pod).await;
                }
            }
            Event::Delete(node) => drop(self.nodes.remove(&node.metadata.name.unwrap_or_default())),
            Event::Init => {}
            Event::InitDone => return true,
        }
        false
    }

    async fn pod(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.pods.clear(),
            Event::InitApply(pod) => {
                if let Some(pod) = parse(pod) {
                    self.pods.insert(pod.metadata.uid.clone());
                    self.seen(pod).await;
                }
            }
            Event::InitDone => self.listed().await,
            Event::Apply(pod) => {
                if let Some(pod) = parse(pod) {
                    self.seen(pod).await;
                }
            }
            Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                self.early.remove(&uid);
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
        if std::mem::take(&mut self.first) {
            self.clear_away().await;
        }
    }

    async fn clear_away(&mut self) {
        for (id, machine) in std::mem::take(&mut self.adopted) {
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
        let machines = observed.map_or(1, |observed| observed.machine_count.max(1));
        let uri = format!("/apis/isopod.dev/v1alpha1/usagerecords/{}", node::usage_name(uid, machines));
        if let Err(error) = self.context.api.patch(&uri, &node::usage_end(jiff::Timestamp::now())).await {
            tracing::error!(uid, %error, "usage record not closed");
        }
        self.context.logs.remove(uid);
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "pod state cannot be removed");
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
            return self.tell(&uid, Message::Update(Box::new(pod))).await;
        }
        if pod.spec.node_name.is_empty() || place(&pod).is_none() {
            return;
        }
        if !self.nodes.contains(&pod.spec.node_name) {
            // The watches of nodes and pods are not in step.
            self.early.insert(uid, pod);
            return;
        }
        let observed = self.recall(&uid);
        let machine = self.adopted.remove(&format!("{uid}-{}", observed.machine_count));
        if let Some(handle) = Actor::start(self.context.clone(), pod, observed, machine) {
            self.context.actors().insert(uid, handle);
        }
    }

    fn recall(&self, uid: &str) -> Observed {
        let path = state_path(&self.context, uid);
        std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

fn parse(object: DynamicObject) -> Option<Pod> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut document = object.data;
    document["metadata"] = serde_json::to_value(object.metadata).ok()?;
    match serde_json::from_value(document) {
        Ok(pod) => Some(pod),
        Err(error) => {
            tracing::error!(name, %error, "a pod cannot be read");
            None
        }
    }
}
