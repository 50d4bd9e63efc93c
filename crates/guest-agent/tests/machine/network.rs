//! A pod's network: a tap in a network namespace of this test's own, an address given after the restore, both directions.

use std::process::Command;

use isopod_guest_api::{ContainerConfig, LogsRequest, NetworkConfig, PodConfig};
use isopod_vmm::{MachineSpec, StartPath};
use rustix::thread::UnshareFlags;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{self, Lab, container, text, wait_until};

const GATEWAY: &str = "169.254.1.1";
const POD: &str = "10.9.8.7";

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One thread for everything: a network namespace belongs to a thread, and threads made later inherit it.
#[tokio::test(flavor = "current_thread")]
async fn a_pod_speaks_to_its_host_and_its_host_to_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    #[expect(deprecated, reason = "safe for a network namespace; the other form is for shared descriptors")]
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    let Some(lab) = Lab::open(true).await else { return };
    ip("link set lo up");
    ip("tuntap add dev isotap0 mode tap");
    ip(&format!("addr add {GATEWAY}/32 dev isotap0"));
    ip("link set isotap0 up");
    ip(&format!("route add {POD}/32 dev isotap0"));
    let missing =
        lab.vmm().prepare(MachineSpec { tap: "isotap9".into(), ..lab.spec("missing", 256) }).await.unwrap_err();
    assert!(missing.to_string().contains("isotap9"), "{missing}");
    let machine = lab.vmm().prepare(MachineSpec { tap: "isotap0".into(), ..lab.spec("network", 256) }).await.unwrap();
    assert_eq!((machine.path(), machine.tap()), (StartPath::Restored, "isotap0".into()));
    machine.attach_disk(0, &lab.disk, true).await.unwrap();
    let client = support::client(&machine).await;
    let network = NetworkConfig {
        mac: "52:54:0a:09:08:07".into(),
        ipv4_address: POD.into(),
        prefix_length: 32,
        gateway: GATEWAY.into(),
        mtu: 1400,
        nameservers: vec!["10.96.0.10".into()],
        search: vec!["default.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    };
    client.configure_pod(PodConfig { network: Some(network), ..support::pod("pod-1") }).await.unwrap();
    let listener = TcpListener::bind((GATEWAY, 7777)).await.unwrap();
    let line = "cd /sys/class/net/eth0; cat address mtu; cat /etc/resolv.conf; grep web-0 /etc/hosts; nc 169.254.1.1 7777 < /etc/hostname; \
                echo; exec busybox httpd -f -p 8080 -h /etc";
    client.start_container(ContainerConfig { ..container("c1", line) }).await.unwrap();
    let (mut stream, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip().to_string(), POD);
    let mut said = String::new();
    // The client of the image waits for our end before it ends.
    stream.shutdown().await.unwrap();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "web-0\n");
    let mut page = String::new();
    wait_until(
        async || {
            let Ok(mut stream) = TcpStream::connect((POD, 8080)).await else { return false };
            stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").await.unwrap();
            page.clear();
            stream.read_to_string(&mut page).await.unwrap();
            true
        },
        |connected| *connected,
    )
    .await;
    assert!(page.contains("web:x:101"), "{page}");
    client.signal_container("c1", 9, false).await.unwrap();
    let (out, _) = support::logs(&client, LogsRequest { container_id: "c1".into(), offset: 0, follow: true }).await;
    let expected = "52:54:0a:09:08:07\n1400\nsearch default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n10.9.8.7\tweb-0\n";
    assert_eq!(text(&out).trim_end(), expected.trim_end());
    machine.destroy().await.unwrap();
}
