//! A watch: what it covers, and the ordered stream of events a watcher reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;

use crate::entry::Event;
use crate::error::WatchError;
use crate::hub::{Subscription, topic_of};

/// Which keys a watch covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every key that begins so; empty covers everything.
    Prefix(String),
    /// One key.
    Key(String),
}

impl Scope {
    pub(crate) fn covers(&self, key: &str) -> bool {
        match self {
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Key(wanted) => key == wanted,
        }
    }

    /// The one topic this scope lies in, if it lies in one.
    pub(crate) fn topic(&self) -> Option<&str> {
        match self {
            Self::Prefix(prefix) => prefix.split_once('/').map(|(topic, _)| topic),
            Self::Key(key) => Some(topic_of(key)),
        }
    }
}

/// Events after a revision, in revision order, without gaps or repeats.
#[derive(Debug)]
pub struct Watch {
    replay: VecDeque<Arc<Event>>,
    live: mpsc::Receiver<Arc<Event>>,
    lagged: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    queue: usize,
    seen: u64,
}

impl Watch {
    pub(crate) fn new(subscription: Subscription, published: Arc<AtomicU64>, queue: usize, from: u64) -> Self {
        let Subscription { replay, live, lagged } = subscription;
        Self { replay, live, lagged, published, queue, seen: from }
    }

    /// The next event; `None` when the store has closed.
    ///
    /// # Errors
    /// [`WatchError::Lagged`] once, after the last event before the gap, when this watcher read too slowly.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, WatchError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`Watch::next`] for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Arc<Event>, WatchError>>> {
        let event = match self.replay.pop_front() {
            Some(event) => event,
            None => match ready!(self.live.poll_recv(context)) {
                Some(event) => event,
                None if self.lagged.swap(false, Ordering::AcqRel) => {
                    return Poll::Ready(Some(Err(WatchError::Lagged { queue: self.queue })));
                }
                None => return Poll::Ready(None),
            },
        };
        self.seen = event.revision();
        Poll::Ready(Some(Ok(event)))
    }

    /// An event that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        let event = self.replay.pop_front().or_else(|| self.live.try_recv().ok())?;
        self.seen = event.revision();
        Some(event)
    }

    /// The newest revision up to which this watcher has received everything: the store's own revision when nothing is
    /// queued, so that it moves even while no covered key changes.
    pub fn progress(&self) -> u64 {
        let published = self.published.load(Ordering::Acquire);
        if self.replay.is_empty() && self.live.is_empty() && !self.lagged.load(Ordering::Acquire) {
            published.max(self.seen)
        } else {
            self.seen
        }
    }
}
