//! What a pod's containers and volumes refer to, fetched once for the several steps of a start, and what of it the guest has.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use isopod_planner::environment::Sources;
use isopod_planner::volumes::{Content, File, VolumeContent};
use isopod_types::pod::Pod;
use tokio::sync::Mutex;

use crate::api::Api;
use crate::tokens::Tokens;

/// How long an answer serves. Shorter than the shortest back-off, so that what is tried again sees what was changed.
const FRESH: Duration = Duration::from_secs(5);

/// The last answer. Whoever asks while it is being fetched waits for it.
#[derive(Default)]
pub(crate) struct Fetched {
    last: Mutex<Option<(Instant, Arc<Sources>)>>,
    pub(crate) tokens: Tokens,
    /// Digests of the files that the guest was given, by volume.
    given: SyncMutex<BTreeMap<String, u64>>,
}

impl Fetched {
    /// What a pod refers to.
    ///
    /// # Errors
    /// When the API does not answer. What does not exist is no error here.
    pub(crate) async fn get(&self, api: &Api, pod: &Pod) -> Result<Arc<Sources>, kube::Error> {
        let mut kept = self.last.lock().await;
        if let Some((at, sources)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(sources.clone());
        }
        let sources = Arc::new(api.sources(pod, &self.tokens).await?);
        *kept = Some((Instant::now(), sources.clone()));
        Ok(sources)
    }

    /// Fetches ahead of the first use, which tells of a failure.
    pub(crate) async fn prepare(&self, api: &Api, pod: &Pod) {
        if let Err(error) = self.get(api, pod).await {
            tracing::debug!(pod = pod.metadata.name, %error, "what a pod refers to was not fetched ahead");
        }
    }

    /// The guest is given these volumes.
    pub(crate) fn give_all(&self, contents: &[VolumeContent]) {
        for content in contents {
            if let Content::Files(files) = &content.source {
                self.give(&content.name, files);
            }
        }
    }

    /// The guest is given these files.
    pub(crate) fn give(&self, volume: &str, files: &[File]) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.to_owned(), digest(files));
    }

    /// Whether the guest has these files already.
    pub(crate) fn was_given(&self, volume: &str, files: &[File]) -> bool {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).get(volume) == Some(&digest(files))
    }
}

fn digest(files: &[File]) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}
