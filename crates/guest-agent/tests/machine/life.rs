//! The life of machines and of conversations with them: booted, restored, paused, adopted, made nobody's, ended.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use isopod_guest_api::{
    ContainerConfig, ContainerState, EmptyDirVolume, ErrorKind, LogsRequest, Mount, PodConfig, Volume, VolumeSource,
};
use isopod_vmm::{Machine, StartPath, Vmm};

use crate::{
    guest::{exec, finish, pod, run},
    support::{self, Lab, container, text, wait_until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_in_a_cold_booted_machine() {
    let Some(lab) = Lab::open(false).await else { return };
    let (machine, client) = pod(&lab, "cold", support::pod("pod-1")).await;
    assert_eq!(machine.path(), StartPath::Booted);
    assert!(client.hello().kernel_release.contains("cloud"), "{:?}", client.hello());
    let mut events = client.events(0).await.unwrap();
    client.start_container(container("c1", "echo out; echo err >&2; id -u; exit 3")).await.unwrap();
    let exit = support::exit(&mut events, "c1").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, 0, false));
    assert!(exit.started_unix_nanos > 1_700_000_000_000_000_000 && exit.finished_unix_nanos >= exit.started_unix_nanos);
    let (out, err) = support::logs(&client, LogsRequest { container_id: "c1".into(), offset: 0, follow: true }).await;
    assert_eq!((text(&out), text(&err)), ("out\n0\n", "err\n"));
    let fact = machine.destroy().await.unwrap();
    assert_eq!(fact.signal, Some(9));
    assert!(!lab.options.run_dir.join("cold").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_one_class_are_restored_from_one_template() {
    let Some(mut lab) = Lab::open(true).await else { return };
    for round in 0..3 {
        let (machine, client) = pod(&lab, &format!("clone-{round}"), support::pod("pod-1")).await;
        assert_eq!(machine.path(), StartPath::Restored);
        // What one machine writes, the next one does not see.
        let (exit, output) = run(&client, container("c1", "cat /marker; echo x > /marker; exit 7")).await;
        assert_eq!(exit.code, 7);
        assert!(output.contains("No such file"), "{output}");
        machine.destroy().await.unwrap();
    }
    // Another process finds the template in the cache.
    let refused = Vmm::open(lab.options.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    lab.vmm = None;
    let other = Vmm::open(lab.options.clone()).await.unwrap();
    let machine = other.prepare(lab.spec("other", 256)).await.unwrap();
    assert_eq!(machine.path(), StartPath::Restored);
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_learns_what_it_missed() {
    let Some(mut lab) = Lab::open(true).await else { return };
    let (_, client) = pod(&lab, "away", support::pod("pod-1")).await;
    client.start_container(container("long", "sleep 1000")).await.unwrap();
    client.start_container(container("noisy", "yes | head -c 6000000; exit 4")).await.unwrap();
    // Leave in the middle of bulk data, as a host that is killed does.
    let mut log = client.logs(LogsRequest { container_id: "noisy".into(), offset: 0, follow: true }).await.unwrap();
    log.next().await.unwrap().unwrap();
    drop((log, client));
    lab.vmm = None;
    // Another process of ours finds the machine.
    let other = Vmm::open(lab.options.clone()).await.unwrap();
    let machines: BTreeMap<String, Machine> =
        other.adopt().await.unwrap().into_iter().map(|machine| (machine.id(), machine)).collect();
    assert_eq!(machines.keys().collect::<Vec<_>>(), ["away"]);
    let machine = &machines["away"];
    assert_eq!((machine.path(), machine.memory_bytes()), (StartPath::Restored, 256 << 20));
    for round in 2..5 {
        let client = support::client(machine).await;
        assert_eq!((client.hello().epoch, client.hello().pod_uid.as_str()), (round, "pod-1"));
        let mut events = client.events(0).await.unwrap();
        let exit = support::exit(&mut events, "noisy").await;
        assert_eq!((exit.code, exit.log_end_offset), (4, 6_000_000));
        let states: Vec<_> =
            client.hello().containers.iter().map(|status| (status.id.clone(), status.state())).collect();
        assert!(states.contains(&("long".into(), ContainerState::Running)), "{states:?}");
        // The ring holds the end; what it lost is a gap that can be seen.
        let mut log = client.logs(LogsRequest { container_id: "noisy".into(), offset: 0, follow: true }).await.unwrap();
        let (mut first, mut end) = (None, 0);
        while let Some(chunk) = log.next().await {
            let chunk = chunk.unwrap();
            first.get_or_insert(chunk.offset);
            end = chunk.offset + chunk.data.len() as u64;
        }
        assert_eq!(end, 6_000_000);
        assert!(first.unwrap() >= 6_000_000 - (4 << 20) && first.unwrap() > 0);
        let (output, _) = finish(client.exec(exec("long", "echo alive")).await.unwrap()).await;
        assert_eq!(output, "alive\n");
    }
    // A disk can still be exchanged, and the end of the process is seen by whoever adopted it.
    machine.attach_disk(1, &lab.disk, true).await.unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(machine.pid().cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    machine.exited().await;
    machine.destroy().await.unwrap();
    assert!(other.adopt().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_machines_wait_and_statistics_count() {
    let Some(lab) = Lab::open(true).await else { return };
    let spec = isopod_vmm::MachineSpec { paused: true, ..lab.spec("paused", 256) };
    let machine = lab.vmm().prepare(spec).await.unwrap();
    machine.attach_disk(0, &lab.disk, true).await.unwrap();
    machine.claim("somebody").unwrap();
    assert_eq!((machine.owner(), machine.id()), ("somebody".into(), "paused".into()));
    machine.resume().await.unwrap();
    assert_eq!(machine.path(), StartPath::Claimed);
    let client = support::client(&machine).await;
    client.configure_pod(support::pod("pod-1")).await.unwrap();
    client.start_container(container("busy", "while true; do :; done")).await.unwrap();
    wait_until(
        async || client.stats().await.unwrap(),
        |stats| {
            stats
                .containers
                .iter()
                .any(|container| container.cpu_usage_nanos > 50_000_000 && container.memory_usage_bytes > 0)
                && stats.cpu_usage_nanos > 50_000_000
                && stats.memory_total_bytes > 100 << 20
                && stats.memory_available_bytes < stats.memory_total_bytes
        },
    )
    .await;
    assert_eq!(client.reset().await.unwrap_err().kind(), Some(ErrorKind::InvalidArgument));
    // The answer may go down with the machine.
    let _ = client.shutdown().await;
    let fact = tokio::time::timeout(Duration::from_secs(20), machine.exited()).await.unwrap();
    assert_eq!(fact.code, Some(0));
    tokio::time::timeout(Duration::from_secs(20), client.closed()).await.unwrap();
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_was_reset_is_nobodys() {
    let Some(lab) = Lab::open(true).await else { return };
    let volume = Volume {
        name: "v".into(),
        source: Some(VolumeSource::EmptyDir(EmptyDirVolume { memory: true, size_limit_bytes: 0 })),
    };
    let mount = Mount { volume: "v".into(), mount_path: "/v".into(), ..Mount::default() };
    let (machine, client) =
        pod(&lab, "reset", PodConfig { volumes: vec![volume.clone()], ..support::pod("pod-1") }).await;
    let write =
        ContainerConfig { mounts: vec![mount.clone()], ..container("c1", "echo secret > /v/a; echo secret > /a") };
    assert_eq!(run(&client, write).await.0.code, 0);
    client.reset().await.unwrap();
    machine.detach_disk(0).await.unwrap();
    // Another pod, another disk, the same names.
    let early = client.start_container(container("c1", "true")).await.unwrap_err();
    assert_eq!(early.kind(), Some(ErrorKind::NotConfigured));
    machine.attach_disk(0, &lab.disk, true).await.unwrap();
    client.configure_pod(PodConfig { volumes: vec![volume], ..support::pod("pod-2") }).await.unwrap();
    let read = ContainerConfig { mounts: vec![mount], ..container("c1", "cat /v/a /a; hostname") };
    let (_, output) = run(&client, read).await;
    assert!(!output.contains("secret") && output.contains("web-0"), "{output}");
    machine.destroy().await.unwrap();
}
