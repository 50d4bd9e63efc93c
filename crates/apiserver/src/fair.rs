//! An equal fair queue: so many requests are worked on at once, and when more come, each user in turn gets the next free
//! place. One that asks a thousand times waits behind itself, not before others (in place of upstream's API priority and
//! fairness).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Requests of one user that may wait.
const WAITING_PER_FLOW: usize = 200;
/// Requests of all users that may wait.
const WAITING: usize = 4_000;
/// Longest wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// A queue in front of a number of places. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FairQueue(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    free: usize,
    waiting: usize,
    /// Who waits, by user; no list is empty.
    flows: BTreeMap<String, VecDeque<oneshot::Sender<Place>>>,
    /// Whose turn it is: every user with a list, once.
    turns: VecDeque<String>,
}

/// The right to be worked on, until it is dropped.
pub(crate) struct Place(FairQueue);

/// No place in time, or too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl FairQueue {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: places, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.state().free
    }

    /// A place for a user's request, after those who come before.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) async fn place(&self, user: &str) -> Result<Place, Full> {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Place(self.clone()));
            }
            state.join(user)?
        };
        // A place that is given to one who has just gone is dropped with the channel, and so given to the next.
        tokio::time::timeout(PATIENCE, turn).await.map_err(|_| Full)?.map_err(|_| Full)
    }
}

impl State {
    fn join(&mut self, user: &str) -> Result<oneshot::Receiver<Place>, Full> {
        let mut of_user = self.flows.get(user).map_or(0, VecDeque::len);
        if of_user >= WAITING_PER_FLOW || self.waiting >= WAITING {
            self.forget_gone();
            of_user = self.flows.get(user).map_or(0, VecDeque::len);
        }
        if of_user >= WAITING_PER_FLOW || self.waiting >= WAITING {
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        if of_user == 0 {
            self.turns.push_back(user.to_owned());
        }
        self.flows.entry(user.to_owned()).or_default().push_back(sender);
        self.waiting += 1;
        Ok(receiver)
    }

    /// Takes those out of the queue who wait no more.
    fn forget_gone(&mut self) {
        self.flows.values_mut().for_each(|flow| flow.retain(|waiting| !waiting.is_closed()));
        self.flows.retain(|_, flow| !flow.is_empty());
        self.turns.retain(|user| self.flows.contains_key(user));
        self.waiting = self.flows.values().map(VecDeque::len).sum();
    }

    /// Who is next: of the user whose turn it is, the one who has waited longest.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let user = self.turns.pop_front()?;
        let flow = self.flows.get_mut(&user)?;
        let next = flow.pop_front();
        if flow.is_empty() {
            self.flows.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        self.waiting -= 1;
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        loop {
            let next = {
                let mut state = self.0.state();
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            // Given outside the lock: one that is refused is dropped here, which comes back to this function.
            match next {
                Some(next) if next.is_closed() => {}
                Some(next) => return drop(next.send(Place(self.0.clone()))),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in the order in which they get the only place.
    async fn order(asked: &[&str]) -> Vec<String> {
        let queue = FairQueue::new(1);
        let held = queue.place("holder").await.unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for user in asked {
            let (queue, served, user) = (queue.clone(), served.clone(), (*user).to_owned());
            tasks.push(tokio::spawn(async move {
                let _place = queue.place(&user).await.unwrap();
                served.lock().unwrap().push(user);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let served = served.lock().unwrap().clone();
        assert_eq!(queue.state().free, 1);
        let state = queue.state();
        assert!(state.flows.is_empty() && state.turns.is_empty());
        served
    }

    #[tokio::test]
    async fn users_take_turns() {
        for (asked, expected) in [
            (&["a", "a", "a", "b"][..], &["a", "b", "a", "a"][..]),
            (&["a", "b", "a", "c", "b"], &["a", "b", "c", "a", "b"]),
            (&["a", "a"], &["a", "a"]),
        ] {
            assert_eq!(order(asked).await, expected);
        }
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let queue = FairQueue::new(1);
        let held = queue.place("a").await.unwrap();
        let gone = queue.clone();
        let gone = tokio::spawn(async move { gone.place("b").await.map(drop) });
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let waits = queue.clone();
        let waits = tokio::spawn(async move { waits.place("c").await.is_ok() });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waits.await.unwrap());
        assert_eq!(queue.state().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_and_queues_end() {
        let queue = FairQueue::new(1);
        let _held = queue.place("a").await.unwrap();
        assert_eq!(queue.place("b").await.err(), Some(Full), "nobody leaves");
        let crowd: Vec<_> = (0..WAITING_PER_FLOW)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.place("greedy").await.map(drop) })
            })
            .collect();
        while queue.state().flows.get("greedy").map_or(0, VecDeque::len) < WAITING_PER_FLOW {
            tokio::task::yield_now().await;
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(queue.place("greedy").await.err(), Some(Full), "one more than may wait");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for task in crowd {
            task.abort();
            assert!(task.await.is_err());
        }
        let mut state = queue.state();
        state.forget_gone();
        assert_eq!((state.waiting, state.turns.len()), (0, 0));
    }
}
