//! What the guest is: its pod, its containers, its history. Shared by all calls; conversations come and go, this stays.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use isopod_guest_api::{ContainerConfig, ErrorKind, limit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{container::Container, events::Events, fault::Fault, reaper::Reaper, tenants::Tenants};

/// Longest container id in bytes.
const ID_BYTES: usize = 128;

/// The guest.
#[derive(Debug)]
pub(crate) struct Agent {
    tenants: Mutex<Tenants>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    pub(crate) events: Events,
    pub(crate) reaper: Reaper,
    pub(crate) epoch: AtomicU64,
    sessions: Arc<Semaphore>,
}

/// Nanoseconds since the Unix epoch on this guest's clock.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self {
            tenants: Mutex::default(),
            containers: Mutex::default(),
            events: Events::default(),
            reaper: Reaper::default(),
            epoch: AtomicU64::new(0),
            sessions: Arc::new(Semaphore::new(limit::SESSIONS)),
        }
    }

    pub(crate) fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Fault> {
        let found = self.containers().get(id).cloned();
        found.ok_or_else(|| Fault::new(ErrorKind::NoSuchContainer, format!("there is no container {id:?}")))
    }

    /// Takes note of a container that is about to be started.
    pub(crate) fn admit(&self, config: ContainerConfig) -> Result<Arc<Container>, Fault> {
        check_id(&config.id)?;
        let mut containers = self.containers();
        if containers.contains_key(&config.id) {
            return Err(Fault::new(ErrorKind::AlreadyExists, format!("container {} exists", config.id)));
        }
        let of_pod = containers.values().filter(|container| container.config.pod_uid == config.pod_uid);
        if of_pod.count() >= limit::CONTAINERS {
            return Err(Fault::new(
                ErrorKind::LimitReached,
                format!("the pod has {} containers already", limit::CONTAINERS),
            ));
        }
        let container = Arc::new(Container::new(config));
        containers.insert(container.config.id.clone(), container.clone());
        Ok(container)
    }

    /// The right to one session, as long as it is held.
    pub(crate) fn session(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let permit = self.sessions.clone().try_acquire_owned();
        permit
            .map_err(|_| Fault::new(ErrorKind::LimitReached, format!("{} sessions are open already", limit::SESSIONS)))
    }
}

/// An id becomes the name of directories.
fn check_id(id: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > ID_BYTES || id.starts_with('.') || !id.chars().all(good) {
        return Err(Fault::invalid(format!(
            "container id {id:?} is not 1 to {ID_BYTES} letters, digits, `-`, `_` or `.`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_unique() {
        let agent = Agent::new();
        let admit = |id: &str| {
            agent.admit(ContainerConfig { id: id.into(), ..ContainerConfig::default() }).map_err(|fault| fault.0.kind())
        };
        assert!(admit("web-0_1.x").is_ok());
        assert_eq!(admit("web-0_1.x").unwrap_err(), ErrorKind::AlreadyExists);
        for id in ["", "..", "a/b", ".x", "ä", &"x".repeat(129)] {
            assert_eq!(admit(id).unwrap_err(), ErrorKind::InvalidArgument, "{id}");
        }
        assert_eq!(agent.container("none").unwrap_err().0.kind(), ErrorKind::NoSuchContainer);
    }
}
