//! The host agent's pool of waiting machines, with real ones.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use isopod_host_agent::pool::{Class, Limits, Pool, Taps};
use isopod_host_agent::scratch::Scratch;
use isopod_vmm::StartPath;

use crate::support::{self, Lab, container};

/// Machines without network.
struct NoTaps;

#[async_trait]
impl Taps for NoTaps {
    async fn create(&self, _: &str) -> anyhow::Result<String> {
        Ok(String::new())
    }

    async fn delete(&self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_wait_are_taken_and_replaced() {
    let Some(lab) = Lab::open(true).await else { return };
    let limits = Limits { per_class: 1, classes: 2 };
    let (vmm, scratch) = (lab.vmm().clone(), Scratch::new(lab.directory().join("scratch")));
    let pool = Pool::open(vmm, Arc::new(NoTaps), scratch, limits, &lab.directory().join("pool")).await.unwrap();
    let class = |memory_mebibytes: u64| Class { vcpu_count: 1, memory_bytes: memory_mebibytes << 20 };
    assert!(pool.take(class(256), "first").await.is_none());
    support::wait_until(async || pool.waiting(class(256)), |waiting| *waiting == 1).await;
    let taken = pool.take(class(256), "pod-7").await.unwrap();
    assert_eq!((taken.machine.path(), taken.machine.owner()), (StartPath::Claimed, "pod-7".into()));
    assert_eq!((taken.guest.hello().pod_uid.as_str(), taken.guest.hello().containers.len()), ("", 0));
    taken.machine.attach_disk(0, &lab.disk, true).await.unwrap();
    taken.guest.configure_pod(support::pod("pod-7")).await.unwrap();
    assert_eq!(taken.guest.hello().last_event_sequence, 0);
    let mut events = taken.guest.events(0).await.unwrap();
    taken.guest.start_container(container("c1", "exit 6")).await.unwrap();
    assert_eq!(support::exit(&mut events, "c1").await.code, 6);
    taken.machine.destroy().await.unwrap();
    // Another one takes its place; and of three sizes, the one that was asked for first is forgotten.
    support::wait_until(async || pool.waiting(class(256)), |waiting| *waiting == 1).await;
    pool.want(class(128));
    pool.want(class(192));
    let waiting = async || [256, 128, 192].map(|size| pool.waiting(class(size)));
    support::wait_until(waiting, |waiting| *waiting == [0, 1, 1]).await;
    pool.close().await;
    assert_eq!(
        std::fs::read_dir(&lab.options.run_dir)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count(),
        0
    );
    tokio::time::timeout(Duration::from_secs(1), async { assert!(pool.take(class(128), "late").await.is_none()) })
        .await
        .unwrap();
}
