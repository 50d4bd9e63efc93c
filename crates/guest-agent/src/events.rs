//! The guest's history: events in a bounded ring, numbered without holes, told to whoever listens.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use isopod_guest_api::{Event, EventKind, limit};
use tokio::sync::watch;

/// Events so far.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), newest: watch::channel(0).0 }
    }
}

impl Events {
    /// Appends one.
    pub(crate) fn push(&self, unix_nanos: i64, kind: EventKind) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = *self.newest.borrow() + 1;
        ring.push_back(Event { sequence, unix_nanos, kind: Some(kind) });
        if ring.len() > limit::EVENT_RING {
            ring.pop_front();
        }
        self.newest.send_replace(sequence);
    }

    /// Forgets everything, the count included.
    pub(crate) fn clear(&self) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.clear();
        self.newest.send_replace(0);
    }

    /// Number of the newest; 0: none.
    pub(crate) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The first event after a sequence number, once there is one.
    pub(crate) async fn after(&self, sequence: u64) -> Option<Event> {
        let mut newest = self.newest.subscribe();
        newest.wait_for(|newest| *newest > sequence).await.ok()?;
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().find(|event| event.sequence > sequence).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_guest_api::ContainerStarted;

    #[tokio::test]
    async fn events_are_numbered_and_replayed() {
        let events = Events::default();
        let kind = |id: usize| EventKind::Started(ContainerStarted { id: id.to_string(), started_unix_nanos: 1 });
        for id in 1..=limit::EVENT_RING + 10 {
            events.push(1, kind(id));
        }
        assert_eq!(events.newest(), limit::EVENT_RING as u64 + 10);
        // The first ten are gone, and the caller can see it.
        assert_eq!(events.after(0).await.unwrap().sequence, 11);
        assert_eq!(events.after(100).await.unwrap().kind, Some(kind(101)));
    }
}
