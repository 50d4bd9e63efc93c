//! A machine that is a node: pods come and go on one kernel, each with namespaces of its own; what they share, they share.

use std::process::Command;

use isopod_guest_api::{
    ContainerConfig, DiskVolume, EmptyDirVolume, ErrorKind, HostPathVolume, HostPort, LogsRequest, Mount,
    NetworkConfig, NodeConfig, PodConfig, TransportProtocol, Volume, VolumeSource,
};
use isopod_host_agent::guest::{ExecOutput, GuestClient};
use isopod_vmm::{Machine, MachineSpec, NODE_WRITABLE_SLOTS, Role, StartPath};
use rustix::thread::UnshareFlags;
use tokio::io::AsyncReadExt;

use crate::{
    guest::{exec, finish, run},
    support::{self, Lab, container, text, wait_until},
    sysctls::sysctl,
};

const GATEWAY: &str = "169.254.1.1";
const NODE: &str = "10.9.8.1";

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace of this test's own, with a tap that leads to a node and two pods.
fn network() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return false;
    }
    #[expect(deprecated, reason = "safe for a network namespace; the other form is for shared descriptors")]
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    for line in ["link set lo up", "tuntap add dev isotap0 mode tap", "addr add 169.254.1.1/32 dev isotap0"] {
        ip(line);
    }
    ip("link set isotap0 up");
    for address in [NODE, "10.9.8.2", "10.9.8.3"] {
        ip(&format!("route add {address}/32 dev isotap0"));
    }
    true
}

fn address(ipv4_address: &str) -> NetworkConfig {
    NetworkConfig {
        ipv4_address: ipv4_address.into(),
        prefix_length: 32,
        gateway: GATEWAY.into(),
        ..NetworkConfig::default()
    }
}

async fn node(lab: &Lab) -> (Machine, GuestClient) {
    let spec = MachineSpec { role: Role::Node, tap: "isotap0".into(), ..lab.spec("node", 256) };
    let machine = lab.vmm().prepare(spec).await.unwrap();
    assert_eq!((machine.path(), machine.role()), (StartPath::Booted, Role::Node));
    // The last slot of images: all of them must be there.
    machine.attach_disk(15, &lab.disk, true).await.unwrap();
    let client = support::client(&machine).await;
    let config = NodeConfig { hostname: "node-1".into(), network: Some(address(NODE)), ..NodeConfig::default() };
    client.configure_node(config.clone()).await.unwrap();
    client.configure_node(config).await.unwrap();
    (machine, client)
}

fn volume(name: &str, source: VolumeSource) -> Volume {
    Volume { name: name.into(), source: Some(source) }
}

fn shared(uid: &str, ipv4_address: &str) -> PodConfig {
    let data = HostPathVolume { path: "/var/data".into(), kind: "DirectoryOrCreate".into() };
    PodConfig {
        hostname: uid.into(),
        shared: true,
        network: Some(address(ipv4_address)),
        volumes: vec![
            volume("data", VolumeSource::HostPath(data)),
            volume("own", VolumeSource::EmptyDir(EmptyDirVolume::default())),
        ],
        ..support::pod(uid)
    }
}

fn of(uid: &str, name: &str, line: &str) -> ContainerConfig {
    let mount = |volume: &str| Mount { volume: volume.into(), mount_path: format!("/{volume}"), ..Mount::default() };
    ContainerConfig {
        pod_uid: uid.into(),
        image_slot: 15,
        mounts: vec![mount("data"), mount("own")],
        ..container(&format!("{uid}.{name}"), line)
    }
}

/// One thread for everything: a network namespace belongs to a thread, and threads made later inherit it.
#[tokio::test(flavor = "current_thread")]
async fn pods_share_a_node_and_nothing_more() {
    if !network() {
        return;
    }
    let Some(lab) = Lab::open(false).await else { return };
    let (machine, client) = node(&lab).await;
    let alone = client.configure_pod(support::pod("alone")).await.unwrap_err();
    assert_eq!(alone.kind(), Some(ErrorKind::AlreadyExists), "{alone}");
    let sysctls = vec![sysctl("kernel.shm_rmid_forced", "1"), sysctl("net.ipv4.ip_unprivileged_port_start", "80")];
    client.configure_pod(PodConfig { sysctls, ..shared("a", "10.9.8.2") }).await.unwrap();
    let with_ports =
        PodConfig { host_ports: vec![host_port("127.0.0.1", 81), host_port(NODE, 82)], ..shared("b", "10.9.8.3") };
    client.configure_pod(with_ports.clone()).await.unwrap();
    // Two pods have the same port, each under its own address.
    for uid in ["a", "b"] {
        let line = format!("echo {uid} > /own/page; echo {uid} >> /data/all; exec busybox httpd -f -p 80 -h /own");
        client.start_container(of(uid, "web", &line)).await.unwrap();
    }
    // From the host, from a pod to the other, and to the gateway's side.
    for (address, page) in [("10.9.8.2", "a\n"), ("10.9.8.3", "b\n")] {
        wait_until(async || get(address).await, |answer| answer.ends_with(page)).await;
    }
    let line = "hostname; wc -l < /data/all; printf 'GET /page HTTP/1.0\r\n\r\n' | nc 10.9.8.3 80 | tail -n 1; ls /proc | grep -c '^[0-9]'";
    let (exit, output) = run(&client, of("a", "look", line)).await;
    assert_eq!((exit.code, output.as_str()), (0, "a\n2\nb\n3\n"));
    let line = "cd /proc/sys; cat kernel/shm_rmid_forced net/ipv4/ip_unprivileged_port_start";
    assert_eq!(run(&client, of("a", "parameters", line)).await.1, "1\n80\n");
    assert_eq!(run(&client, of("b", "parameters", line)).await.1, "0\n1024\n");
    // Ports of the node lead to the pod: from the node itself by either address, from another pod and from outside by the node's.
    client.configure_pod(PodConfig { host_network: true, ..shared("h", NODE) }).await.unwrap();
    let ask = |address: &str| format!("printf 'GET /page HTTP/1.0\r\n\r\n' | nc {address} | tail -n 1;");
    let hosts = run(&client, of("h", "hosts", "cat /etc/hosts")).await.1;
    assert!(hosts.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{hosts}");
    let file = HostPathVolume { path: "/etc/hosts".into(), kind: "File".into() };
    let mut looking = shared("f", "10.9.8.4");
    looking.volumes.push(volume("hosts", VolumeSource::HostPath(file)));
    client.configure_pod(looking).await.unwrap();
    let mut look = of("f", "hosts", "cat /hosts");
    look.mounts.push(Mount { volume: "hosts".into(), mount_path: "/hosts".into(), ..Mount::default() });
    assert!(run(&client, look).await.1.ends_with("10.9.8.1\tnode-1\n"));
    client.remove_pod("f").await.unwrap();
    let line = ask("127.0.0.1 81") + &ask(&format!("{NODE} 82"));
    assert_eq!(run(&client, of("h", "ask", &line)).await.1, "b\nb\n");
    assert_eq!(run(&client, of("a", "ask", &ask(&format!("{NODE} 82")))).await.1, "b\n");
    assert!(get_at(NODE, 82).await.ends_with("b\n"));
    assert_eq!(get_at(NODE, 81).await, "");
    client.remove_pod("b").await.unwrap();
    assert_eq!(get_at(NODE, 82).await, "");
    client.configure_pod(with_ports).await.unwrap();
    let line = "echo b > /own/page; exec busybox httpd -f -p 80 -h /own";
    client.start_container(of("b", "web", line)).await.unwrap();
    wait_until(async || get_at(NODE, 82).await, |answer| answer.ends_with("b\n")).await;
    client.remove_pod("h").await.unwrap();
    // Sessions and forwarded ports lead to the pod that they are for.
    let (said, end) =
        finish(client.exec(exec("b.web", "hostname; ip addr show eth0 | grep -c 10.9.8.3")).await.unwrap()).await;
    assert_eq!((said.as_str(), end), ("b\n1\n", ExecOutput::Exited { code: 0 }));
    let mut forwarded = client.connect_pod_port("b", 80).await.unwrap();
    forwarded.input.send(bytes::Bytes::from_static(b"GET /page HTTP/1.0\r\n\r\n")).await.unwrap();
    let answer = forwarded.output.recv().await.unwrap().unwrap();
    assert!(text(&answer).starts_with("HTTP/1.1 200"), "{answer:?}");
    // A pod goes with all that runs of it; its neighbour stays, and so does what is the node's.
    client.remove_pod("a").await.unwrap();
    client.remove_pod("a").await.unwrap();
    assert_eq!(client.exec(exec("a.web", "true")).await.unwrap_err().kind(), Some(ErrorKind::NoSuchContainer));
    assert!(get("10.9.8.3").await.ends_with("b\n"));
    client.configure_pod(shared("a", "10.9.8.2")).await.unwrap();
    let (_, output) =
        run(&client, of("a", "again", "wc -l < /data/all; ls /own; cat /sys/class/net/*/address | wc -l")).await;
    assert_eq!(output, "2\n2\n");
    // Its channel takes one host at a time.
    drop((client, forwarded));
    let hello = support::client(&machine).await.hello().clone();
    assert_eq!(hello.pod_uids, ["a", "b"]);
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_pod_of_a_node_may_have_its_network_and_disks() {
    if !network() {
        return;
    }
    let Some(lab) = Lab::open(false).await else { return };
    let (machine, client) = node(&lab).await;
    let slot = *NODE_WRITABLE_SLOTS.end();
    let disk = lab.directory().join("volume.ext4");
    let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&disk).arg("16M").output().unwrap();
    assert!(made.status.success());
    machine.attach_disk(slot, &disk, false).await.unwrap();
    let with_disk = |uid: &str, address: &str| PodConfig {
        volumes: vec![volume("data", VolumeSource::Disk(DiskVolume { slot, read_only: false }))],
        fs_group: Some(7),
        ..shared(uid, address)
    };
    let on_disk = |uid: &str, name: &str, line: &str| ContainerConfig {
        mounts: vec![Mount { volume: "data".into(), mount_path: "/data".into(), ..Mount::default() }],
        ..of(uid, name, line)
    };
    let host_network = PodConfig { host_network: true, ..with_disk("h", NODE) };
    client.configure_pod(host_network).await.unwrap();
    let line = "hostname; ip addr show eth0 | grep -c 10.9.8.1/32; echo kept > /data/file; cat /data/file";
    let (exit, output) = run(&client, on_disk("h", "c", line)).await;
    assert_eq!((exit.code, output.as_str()), (0, "node-1\n1\nkept\n"));
    client.remove_pod("h").await.unwrap();
    // The disk can be taken out, and holds what was written.
    machine.detach_disk(slot).await.unwrap();
    machine.attach_disk(slot, &disk, false).await.unwrap();
    client.configure_pod(with_disk("p", "10.9.8.2")).await.unwrap();
    let (_, output) = run(&client, on_disk("p", "c", "cat /data/file")).await;
    assert_eq!(output, "kept\n");
    client.remove_pod("p").await.unwrap();
    client.release_image(15).await.unwrap();
    machine.detach_disk(15).await.unwrap();
    // Another kernel's paths, and what is not there.
    let refused = |path: &str, kind: &str| PodConfig {
        volumes: vec![volume("v", VolumeSource::HostPath(HostPathVolume { path: path.into(), kind: kind.into() }))],
        ..shared("r", "10.9.8.3")
    };
    for (path, kind, expected) in [
        ("/nowhere", "Directory", "hostPath /nowhere"),
        ("/dev/null", "File", "is not a file"),
        ("../x", "", "absolute"),
    ] {
        let fault = client.configure_pod(refused(path, kind)).await.unwrap_err();
        assert!(fault.to_string().contains(expected), "{fault}");
    }
    client.configure_pod(refused("/dev/null", "CharDevice")).await.unwrap();
    let logs = client.logs(LogsRequest { container_id: "none".into(), offset: 0, follow: false }).await;
    assert_eq!(logs.err().and_then(|error| error.kind()), Some(ErrorKind::NoSuchContainer));
    machine.destroy().await.unwrap();
}

/// A port of the node that leads to port 80 of a pod.
fn host_port(address: &str, port: u32) -> HostPort {
    HostPort { protocol: TransportProtocol::Tcp.into(), address: address.into(), port, pod_port: 80 }
}

/// A page that a pod serves; empty when it does not yet.
async fn get(address: &str) -> String {
    get_at(address, 80).await
}

async fn get_at(address: &str, port: u16) -> String {
    let Ok(mut stream) = tokio::net::TcpStream::connect((address, port)).await else { return String::new() };
    if tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /page HTTP/1.0\r\n\r\n").await.is_err() {
        return String::new();
    }
    let mut answer = String::new();
    // What was cut off is asked for again.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
