//! The loop driver: the one task that owns the core, its watches and its writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isopod_types::names::ROOT_CA_CONFIG_MAP;
use jiff::Timestamp;
use kube::Client;
use kube::discovery::{Discovery, Scope, verbs};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cache::{SELECTED, WATCHED, is_whole};
use crate::core::Core;
use crate::execute::{Executor, Outcome};
use crate::graph::{Served, interned};
use crate::queue::Work;
use crate::watches::{self, Seen};

/// Changes that wait to be taken in.
const INBOX: usize = 4096;
/// Plans that are carried out at once.
const RUNNING_MAX: usize = 256;
/// What stands for the definitions of custom kinds among what has to be seen whole.
const DEFINITIONS: (&str, &str) = ("object", "CustomResourceDefinition");

/// What the controllers need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's certificate authority, PEM, for the ConfigMap in every namespace.
    pub ca_pem: String,
}

/// Runs all controllers until told to stop.
///
/// # Errors
/// When the API's kinds cannot be discovered.
pub async fn run(client: Client, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let served = discover(&client).await?;
    let (to_inbox, inbox) = mpsc::channel(INBOX);
    let mut tasks = JoinSet::new();
    watches::definitions(&mut tasks, &client, to_inbox.clone());
    for kind in WATCHED {
        let selector = (kind.2 == SELECTED).then(|| format!("metadata.name={ROOT_CA_CONFIG_MAP}"));
        watches::objects(&mut tasks, &client, *kind, selector.as_deref(), to_inbox.clone());
    }
    let mut driver = Driver::new(client, settings, Watching { tasks, handles: BTreeMap::new(), to_inbox });
    served.into_iter().for_each(|kind| driver.serve(kind));
    driver.run(inbox, stop).await;
    driver.watching.tasks.shutdown().await;
    Ok(())
}

/// All kinds that garbage collection and the end of namespaces have to do with. Events are not: they end by themselves.
pub(crate) async fn discover(client: &Client) -> anyhow::Result<Vec<Served>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut served = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let usable =
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
            if usable && resource.kind != "Event" {
                served.push(Served {
                    group: interned(&resource.group),
                    version: interned(&resource.version),
                    kind: interned(&resource.kind),
                    plural: interned(&resource.plural),
                    namespaced: capabilities.scope == Scope::Namespaced,
                });
            }
        }
    }
    Ok(served)
}

/// The watches, and what ends those of single kinds: group and plural.
struct Watching {
    tasks: JoinSet<()>,
    handles: BTreeMap<(&'static str, &'static str), AbortHandle>,
    to_inbox: mpsc::Sender<Seen>,
}

struct Driver {
    core: Core,
    watching: Watching,
    /// Kinds by the definition that made them.
    custom: BTreeMap<String, Served>,
    executor: Executor,
    running: JoinSet<(Work, Outcome)>,
}

impl Driver {
    fn new(client: Client, settings: Settings, watching: Watching) -> Self {
        let core = Core::new(settings.ca_pem, Some(DEFINITIONS));
        let executor = Executor::new(client, Arc::new(Timestamp::now));
        Self { core, watching, custom: BTreeMap::new(), executor, running: JoinSet::new() }
    }

    /// Watches the objects of a kind from now on, unless all of them are watched whole already.
    fn serve(&mut self, kind: Served) {
        self.core.serve(kind);
        if is_whole(&kind) {
            return;
        }
        let Watching { tasks, handles, to_inbox } = &mut self.watching;
        // Watches that were ended are kept until somebody looks.
        while tasks.try_join_next().is_some() {}
        let handle = watches::metadata(tasks, &self.executor.client, kind, to_inbox.clone());
        if let Some(before) = handles.insert((kind.group, kind.plural), handle) {
            before.abort();
        }
    }

    /// Forgets a kind and its objects.
    fn unserve(&mut self, kind: &Served) {
        if let Some(handle) = self.watching.handles.remove(&(kind.group, kind.plural)) {
            handle.abort();
        }
        self.core.unserve(kind);
    }

    /// A definition says which kind it makes, if any.
    fn define(&mut self, definition: String, kind: Option<Served>) {
        let before = self.custom.get(&definition).copied();
        if before == kind {
            return;
        }
        if let Some(before) = before {
            self.custom.remove(&definition);
            self.unserve(&before);
        }
        if let Some(kind) = kind {
            self.custom.insert(definition, kind);
            // Kinds that were there when the controllers started are watched already.
            if !self.core.served.contains(&kind) {
                self.serve(kind);
            }
        }
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Seen>, stop: CancellationToken) {
        loop {
            self.core.queue.advance(Timestamp::now());
            self.start_ready();
            // Plans may have named times of their own.
            let next = self.core.queue.next_at();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(seen) = inbox.recv() => {
                    self.take_in(seen);
                    while let Ok(seen) = inbox.try_recv() {
                        self.take_in(seen);
                    }
                }
                Some(Ok((work, outcome))) = self.running.join_next() => {
                    self.core.finish(&work, outcome, Timestamp::now());
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Decides about everything that is ready, and starts the writes.
    fn start_ready(&mut self) {
        while self.running.len() < RUNNING_MAX {
            let Some(begun) = self.core.begin(Timestamp::now()) else { return };
            let executor = self.executor.clone();
            self.running.spawn(async move { begun.run(&executor).await });
        }
    }

    /// Takes in what a watch saw.
    fn take_in(&mut self, seen: Seen) {
        match seen {
            Seen::Defined { definition, served } => self.define(definition, served),
            Seen::DefinitionsComplete { definitions } => {
                let gone: Vec<String> =
                    self.custom.keys().filter(|name| !definitions.contains(*name)).cloned().collect();
                gone.into_iter().for_each(|name| self.define(name, None));
                self.core.complete(DEFINITIONS);
            }
            other => self.core.take_in(other, Timestamp::now()),
        }
    }
}

/// Sleeps until a time, or for ever.
async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.duration_since(Timestamp::now()).unsigned_abs();
            let due = at <= Timestamp::now();
            tokio::time::sleep(if due { Duration::ZERO } else { left }).await;
        }
    }
}
