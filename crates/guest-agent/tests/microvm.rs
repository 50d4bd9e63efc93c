//! The guest agent in a real microVM: QEMU, a cloud kernel, an image disk made of busybox. Needs root, QEMU, e2fsprogs and
//! busybox-static, and the agent built for guests (`cargo xtask guest`, or see `support::agent`); says loudly what is missing.

mod support;

use std::time::Instant;

use isopod_guest_api::{ContainerConfig, ErrorKind, EventKind, LogsRequest};
use support::{Lab, container, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_in_a_cold_booted_machine() {
    let Some(lab) = Lab::open(false).await else { return };
    let before = Instant::now();
    let machine = lab.machine("cold", 256).await;
    let client = support::client(&machine).await;
    eprintln!("spawn -> hello {:?}, kernel {}", before.elapsed(), client.hello().kernel_release);
    client.configure_pod(support::pod("pod-1")).await.unwrap();
    let mut events = client.events(0).await.unwrap();
    let before = Instant::now();
    client.start_container(container("c1", "echo out; echo err >&2; id -u; exit 3")).await.unwrap();
    eprintln!("start container {:?}", before.elapsed());
    let exit = support::exit(&mut events, "c1").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, 0, false));
    let (out, err) = support::logs(&client, LogsRequest { container_id: "c1".into(), offset: 0, follow: true }).await;
    assert_eq!((text(&out), text(&err)), ("out\n0\n", "err\n"));
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_restored_from_a_template() {
    let Some(lab) = Lab::open(true).await else { return };
    let before = Instant::now();
    assert!(lab.vmm.warm(1, 256 << 20, false).await);
    eprintln!("template {:?}", before.elapsed());
    for round in 0..3 {
        let before = Instant::now();
        let machine = lab.machine(&format!("clone-{round}"), 256).await;
        assert_eq!(machine.path(), isopod_vmm::StartPath::Restored);
        let prepared = before.elapsed();
        let client = support::client(&machine).await;
        let hello = before.elapsed();
        client.configure_pod(support::pod("pod-1")).await.unwrap();
        let configured = before.elapsed();
        let mut events = client.events(0).await.unwrap();
        client.start_container(container("c1", "exit 7")).await.unwrap();
        let started = before.elapsed();
        assert_eq!(support::exit(&mut events, "c1").await.code, 7);
        eprintln!("prepared {prepared:?}, hello {hello:?}, configured {configured:?}, started {started:?}, exited {:?}", before.elapsed());
        machine.destroy().await.unwrap();
    }
}
