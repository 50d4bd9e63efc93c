//! The writer thread: the only one that writes the disk. It takes what is queued, makes one durable commit and shows the
//! result to readers; watchers and then those who wrote are told by a task.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::disk::Disk;
use crate::error::CommitError;
use crate::store::Shared;
use crate::write::{Outcome, Write};

type Reply = oneshot::Sender<Result<Outcome, CommitError>>;

enum Job {
    Write(Write, Reply),
    Compact(u64, oneshot::Sender<Result<(), CommitError>>),
}

/// The caller's end. Dropping it lets the thread finish what is queued and waits for it.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(disk: Disk, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(shared.limits.commit_queue.max(1));
        let runtime = Handle::try_current().ok();
        let task = Task { disk, shared, runtime, failed: None };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || task.run(queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    pub(crate) async fn commit(&self, write: Write) -> Result<Outcome, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Write(write, reply)).await?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    pub(crate) async fn compact(&self, revision: u64) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Compact(revision, reply)).await?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    async fn send(&self, job: Job) -> Result<(), CommitError> {
        let jobs = self.jobs.as_ref().ok_or(CommitError::Closed)?;
        jobs.send(job).await.map_err(|_| CommitError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

/// What the last commit was like.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    count: usize,
    taken: Duration,
}

impl Pace {
    /// How long to gather writes before the next commit. After a commit of several, the writers it answered come back
    /// a moment later; without a pause they would find the next commit begun and take turns, each waiting for two.
    /// Only where a commit is slow, and for a small part of its time; a single writer never waits.
    fn pause(self) -> Option<Duration> {
        const LEAST: Duration = Duration::from_micros(100);
        const MOST: Duration = Duration::from_micros(500);
        let pause = (self.taken / 8).min(MOST);
        (self.count > 1 && pause >= LEAST).then_some(pause)
    }
}

/// Who is to be told of a commit: its watchers, then those who wrote. Told when it is dropped, so that nobody is forgotten where
/// there is no task to do it any more.
struct News {
    shared: Arc<Shared>,
    answers: Vec<(Reply, Result<Outcome, CommitError>)>,
}

impl Drop for News {
    fn drop(&mut self) {
        self.shared.deliver();
        for (reply, answer) in self.answers.drain(..) {
            // Whoever asked may have gone away; the write is made all the same.
            let _ = reply.send(answer);
        }
    }
}

struct Task {
    disk: Disk,
    shared: Arc<Shared>,
    /// Where the store was opened, if that was inside a runtime.
    runtime: Option<Handle>,
    failed: Option<CommitError>,
}

impl Task {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let batch_max = self.shared.limits.commit_batch.max(1);
        let (mut jobs, mut pace) = (Vec::new(), Pace::default());
        while queue.blocking_recv_many(&mut jobs, batch_max) > 0 {
            if let Some(pause) = pace.pause() {
                std::thread::sleep(pause);
                while jobs.len() < batch_max
                    && let Ok(job) = queue.try_recv()
                {
                    jobs.push(job);
                }
            }
            let (count, begun) = (jobs.len(), Instant::now());
            self.work(jobs.drain(..));
            pace = Pace { count, taken: begun.elapsed() };
            self.compact_when_overfull();
        }
    }

    fn work(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut writes = Vec::new();
        let mut replies = Vec::new();
        for job in jobs {
            match job {
                Job::Write(write, reply) => {
                    writes.push(write);
                    replies.push(reply);
                }
                Job::Compact(revision, reply) => {
                    self.write(std::mem::take(&mut writes), std::mem::take(&mut replies));
                    // The asker may have gone away; the compaction is done all the same.
                    let _ = reply.send(self.compact(revision));
                }
            }
        }
        self.write(writes, replies);
    }

    fn write(&mut self, writes: Vec<Write>, replies: Vec<Reply>) {
        if writes.is_empty() {
            return;
        }
        let answers = match self.durable(writes) {
            Ok(outcomes) => replies.into_iter().zip(outcomes.into_iter().map(Ok)).collect(),
            Err(error) => replies.into_iter().map(|reply| (reply, Err(error.clone()))).collect(),
        };
        let news = News { shared: Arc::clone(&self.shared), answers };
        // This thread would wake a worker of the runtime for each watcher and each writer, and be interrupted by it as often. A
        // task wakes them all from within.
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { drop(news) })),
            None => drop(news),
        }
    }

    fn durable(&mut self, writes: Vec<Write>) -> Result<Vec<Outcome>, CommitError> {
        self.usable()?;
        let (outcomes, events) = self.shared.decide(writes);
        if !events.is_empty() {
            let appended = self.disk.append(&events);
            self.note(appended)?;
            self.shared.show(events);
        }
        Ok(outcomes)
    }

    fn compact(&mut self, revision: u64) -> Result<(), CommitError> {
        self.usable()?;
        if revision <= self.shared.index().compacted() {
            return Ok(());
        }
        let dropped = self.shared.forget(revision);
        let current = self.shared.index().revision();
        let compacted = self.disk.compact(&dropped, current, revision);
        self.note(compacted)
    }

    fn compact_when_overfull(&mut self) {
        if let Some(revision) = self.shared.overfull()
            && let Err(error) = self.compact(revision)
        {
            tracing::error!(%error, "the store could not compact");
        }
    }

    fn usable(&self) -> Result<(), CommitError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// After a failed commit the disk may or may not hold it: refuse all further writes until the store is reopened.
    fn note(&mut self, written: Result<(), redb::Error>) -> Result<(), CommitError> {
        written.map_err(|error| {
            tracing::error!(%error, "the store cannot write any more");
            let failed = CommitError::Disk(error.to_string());
            self.failed = Some(failed.clone());
            failed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_several_writers_on_a_slow_disk_are_gathered() {
        let table = [(0, 0, None), (1, 8_000, None), (2, 700, None), (2, 800, Some(100)), (9, 50_000, Some(500))];
        for (count, taken, expected) in table {
            let pace = Pace { count, taken: Duration::from_micros(taken) };
            assert_eq!(pace.pause(), expected.map(Duration::from_micros), "{pace:?}");
        }
    }
}
