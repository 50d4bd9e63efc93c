//! Who has the disk of a volume: one machine at a time. A file system that two kernels mount is lost. It decides nothing about slots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

/// A machine, and the pods on it that use the disk.
type Holder = (String, BTreeSet<String>);

/// Disks that machines have.
#[derive(Default)]
pub(crate) struct Exclusive(watch::Sender<BTreeMap<PathBuf, Holder>>);

impl Exclusive {
    /// A machine takes a disk for one of its pods, unless another has it. Returns the other.
    pub(crate) fn take(&self, disk: &Path, machine: &str, pod: &str) -> Result<(), String> {
        let mut outcome = Ok(());
        self.0.send_if_modified(|disks| {
            let (holder, pods) = disks.entry(disk.to_owned()).or_insert_with(|| (machine.to_owned(), BTreeSet::new()));
            if holder == machine {
                pods.insert(pod.to_owned());
            } else {
                outcome = Err(holder.clone());
            }
            // Nobody waits for a disk to be taken.
            false
        });
        outcome
    }

    /// As `take`, once the other has let go.
    pub(crate) async fn wait(&self, disk: &Path, machine: &str, pod: &str) {
        let mut changes = self.0.subscribe();
        while self.take(disk, machine, pod).is_err() {
            // It ends when nobody can let go any more: the sender is this very object.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// A pod is gone from its machine, and what nobody else uses there was taken out.
    pub(crate) fn release(&self, pod: &str) {
        self.0.send_if_modified(|disks| {
            let before = disks.len();
            disks.retain(|_, (_, pods)| !pods.remove(pod) || !pods.is_empty());
            disks.len() < before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_in_one_machine_at_a_time() {
        let (all, disk) = (Exclusive::default(), Path::new("d"));
        assert_eq!(all.take(disk, "m", "p"), Ok(()));
        assert_eq!(all.take(disk, "m", "q"), Ok(()), "pods of one machine share it");
        assert_eq!(all.take(disk, "n", "r"), Err("m".into()));
        assert_eq!(all.take(Path::new("e"), "n", "r"), Ok(()));
        let waiting = all.wait(disk, "n", "r");
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        all.release("p");
        assert!(futures::poll!(&mut waiting).is_pending(), "the other pod still uses it");
        all.release("q");
        waiting.await;
        assert_eq!(all.take(disk, "m", "p"), Err("n".into()));
        all.release("r");
        assert_eq!(all.take(disk, "m", "p"), Ok(()));
    }
}
