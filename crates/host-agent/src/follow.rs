//! Files in the volumes of a running pod follow what they are of: ConfigMaps, Secrets, the pod's own labels and annotations, and
//! tokens that are renewed. Told by watches and a clock, one task per pod that has such volumes. What the files are is the planner's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use isopod_guest_api as api;
use isopod_planner::Reason;
use isopod_planner::environment::Sources;
use isopod_planner::volumes::{File, References, files, is_of_files};
use isopod_types::node::{ConfigMap, Secret};
use isopod_types::pod::Pod;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;
use tokio_util::task::AbortOnDropHandle;

use crate::actor::Deed;
use crate::convert;
use crate::deeds::place;
use crate::drivers::Machine;
use crate::kept::Watched;

/// Delay before what could not be brought to the guest is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The task of one pod; it ends with this.
pub(crate) struct Follower {
    pods: watch::Sender<Arc<Pod>>,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// Starts to follow what the pod's volumes are of; none when they hold nothing that changes, or nothing runs.
    pub(crate) fn start(deed: &Deed) -> Option<Self> {
        let machine = deed.machine.clone()?;
        deed.pod.spec.volumes.iter().find(|volume| is_of_files(volume))?;
        let (pods, watched) = watch::channel(deed.pod.clone());
        let task = tokio::spawn(Task::new(deed.clone(), machine, watched).run());
        Some(Self { pods, _task: AbortOnDropHandle::new(task) })
    }

    /// The pod as it is now.
    pub(crate) fn see(&self, pod: &Arc<Pod>) {
        self.pods.send_if_modified(|known| {
            let (old, new) = (&known.metadata, &pod.metadata);
            let differs =
                (&old.labels, &old.annotations, old.generation) != (&new.labels, &new.annotations, new.generation);
            *known = pod.clone();
            differs
        });
    }
}

struct Task {
    deed: Deed,
    machine: Arc<dyn Machine>,
    pods: watch::Receiver<Arc<Pod>>,
    config_maps: BTreeMap<String, Arc<Watched<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Watched<Secret>>>,
}

impl Task {
    fn new(deed: Deed, machine: Arc<dyn Machine>, pods: watch::Receiver<Arc<Pod>>) -> Self {
        let References { config_maps, secrets, .. } = References::of_volumes(&deed.pod);
        let (namespace, context) = (&deed.pod.metadata.namespace, &deed.context);
        let config_maps =
            config_maps.into_iter().map(|name| (name.clone(), context.config_maps.object(namespace, &name)));
        let secrets = secrets.into_iter().map(|name| (name.clone(), context.secrets.object(namespace, &name)));
        Self { config_maps: config_maps.collect(), secrets: secrets.collect(), deed, machine, pods }
    }

    async fn run(mut self) {
        let mut changes = self.changes();
        loop {
            let again = self.bring_up_to_date().await;
            tokio::select! {
                Some(()) = changes.next() => {}
                pod = self.pods.changed() => match pod {
                    Ok(()) => self.deed.pod = self.pods.borrow_and_update().clone(),
                    Err(_) => return,
                },
                () = sleep_until(again) => {}
            }
        }
    }

    /// An item for each change of what is watched.
    fn changes(&self) -> impl Stream<Item = ()> + Unpin + use<> {
        let config_maps =
            self.config_maps.values().map(|one| WatchStream::from_changes(one.known.clone()).map(drop).boxed());
        let secrets = self.secrets.values().map(|one| WatchStream::from_changes(one.known.clone()).map(drop).boxed());
        stream::select_all(config_maps.chain(secrets))
    }

    /// Gives the guest what it has not; returns when to look again.
    async fn bring_up_to_date(&self) -> Option<Instant> {
        let (context, pod) = (&self.deed.context, &self.deed.pod);
        let tokens = &self.deed.sources.tokens;
        let wanted = References::of_volumes(pod).tokens;
        let issued = match tokens.get(&context.api, pod, wanted).await {
            Ok(issued) => issued,
            Err(error) => {
                tracing::warn!(pod = pod.metadata.name, %error, "no token was issued; trying again");
                return Some(Instant::now() + RETRY);
            }
        };
        let next = tokens.next().await;
        let Some(sources) = self.sources(issued) else { return next };
        let place = place(&self.deed);
        let mut all_given = true;
        for (volume, files) in files(pod, &sources, &place) {
            all_given &= match files {
                Ok(files) => self.give(volume, files).await,
                Err(problem) => {
                    self.complain(problem.to_string()).await;
                    true
                }
            };
        }
        if all_given { next } else { Some(Instant::now() + RETRY) }
    }

    /// What the volumes are of, once all of it is known.
    fn sources(&self, tokens: BTreeMap<(String, i64), String>) -> Option<Sources> {
        let config_maps = self.config_maps.iter().map(|(name, one)| {
            let known = one.now()?;
            Some((name.clone(), known.map(|map| (*map).clone())))
        });
        let secrets = self.secrets.iter().map(|(name, one)| {
            let known = one.now()?;
            Some((name.clone(), known.map(|secret| (*secret).clone())))
        });
        let (config_maps, secrets) = (config_maps.collect::<Option<_>>()?, secrets.collect::<Option<_>>()?);
        Some(Sources { config_maps, secrets, tokens, services: Vec::new() })
    }

    /// Gives the guest a volume's files, unless it has them; true when it has them now.
    async fn give(&self, volume: &str, files: Vec<File>) -> bool {
        if self.deed.sources.was_given(volume, &files) {
            return true;
        }
        let request = api::UpdateVolumeRequest {
            name: volume.to_owned(),
            files: Some(convert::files(files.clone())),
            pod_uid: String::new(),
        };
        match self.machine.update_volume(request).await {
            Ok(()) => {
                self.deed.sources.give(volume, &files);
                true
            }
            Err(error) => {
                // A guest that is gone, as that of a pod deleted meanwhile, is told of by whoever watches its machine.
                if error.kind().is_some() {
                    self.complain(format!("MountVolume.SetUp failed for volume {volume:?}: {error}")).await;
                }
                false
            }
        }
    }

    async fn complain(&self, text: String) {
        self.deed.event(None, Reason::warning("FailedMount", text)).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
