//! What a pod's containers and volumes refer to, fetched once for the several steps of a start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isopod_planner::environment::Sources;
use isopod_types::pod::Pod;
use tokio::sync::Mutex;

use crate::api::Api;

/// How long an answer serves. Shorter than the shortest back-off, so that what is tried again sees what was changed.
const FRESH: Duration = Duration::from_secs(5);

/// The last answer. Whoever asks while it is being fetched waits for it.
#[derive(Default)]
pub(crate) struct Fetched(Mutex<Option<(Instant, Arc<Sources>)>>);

impl Fetched {
    /// What a pod refers to.
    ///
    /// # Errors
    /// When the API does not answer. What does not exist is no error here.
    pub(crate) async fn get(&self, api: &Api, pod: &Pod) -> Result<Arc<Sources>, kube::Error> {
        let mut kept = self.0.lock().await;
        if let Some((at, sources)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(sources.clone());
        }
        let sources = Arc::new(api.sources(pod).await?);
        *kept = Some((Instant::now(), sources.clone()));
        Ok(sources)
    }

    /// Fetches ahead of the first use, which tells of a failure.
    pub(crate) async fn prepare(&self, api: &Api, pod: &Pod) {
        if let Err(error) = self.get(api, pod).await {
            tracing::debug!(pod = pod.metadata.name, %error, "what a pod refers to was not fetched ahead");
        }
    }
}
