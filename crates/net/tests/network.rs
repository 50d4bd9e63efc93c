//! A real network on this host: needs root; says so and passes when it has not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::net::Ipv4Addr;
use std::process::Command;

use isopod_net::{HostPort, Network, Protocol, RoutingTable, Settings, Virtual};

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_network_is_made_adopted_and_removed_without_a_trace() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let cluster = format!("net-test-{}", std::process::id());
    let settings = Settings { cluster, vpc: "198.18.0.0/16".parse().unwrap() };
    let before = (output("ip", &["-o", "link"]).lines().count(), output("nft", &["list", "tables"]));
    let network = Network::open(&settings).await.unwrap();
    let tap = network.create_tap("0123456789").await.unwrap();
    network.attach(&tap, "198.18.0.4".parse().unwrap()).await.unwrap();
    assert!(output("ip", &["route"]).contains(&format!("198.18.0.4 dev {tap}")));
    let address = "198.19.0.1".parse().unwrap();
    let virtual_address = Virtual { address, port: 443, protocol: Protocol::Tcp };
    let endpoints = vec![("198.18.0.4".parse().unwrap(), 80), ("198.18.0.5".parse().unwrap(), 80)];
    network.apply(RoutingTable::from([(virtual_address, endpoints)])).await.unwrap();
    let rules = output("nft", &["list", "ruleset"]);
    assert!(rules.contains("198.19.0.1") && rules.contains(&tap), "{rules}");

    ports_of_nodes_lead_to_pods(&network, &tap).await;

    let again = Network::open(&settings).await.unwrap();
    again.sweep(&[tap.clone()].into()).await.unwrap();
    assert!(output("ip", &["-o", "link"]).contains(&tap));
    again.sweep(&Default::default()).await.unwrap();
    assert!(!output("ip", &["-o", "link"]).contains(&tap));

    Network::teardown(&settings).await.unwrap();
    assert_eq!((output("ip", &["-o", "link"]).lines().count(), output("nft", &["list", "tables"])), before);
}

/// This host stands for the pod: what it sends to the node's port comes back to it.
async fn ports_of_nodes_lead_to_pods(network: &Network, tap: &str) {
    let (node, pod, other) = (Ipv4Addr::new(198, 18, 0, 4), Ipv4Addr::LOCALHOST, Ipv4Addr::new(198, 18, 0, 5));
    let listener = tokio::net::TcpListener::bind((pod, 0)).await.unwrap();
    let pod_port = listener.local_addr().unwrap().port();
    let port = |protocol| HostPort { protocol, port: 8080, pod_port };
    network.admit(tap, pod).await.unwrap();
    // What they led to before, counts no more.
    network.publish(node, other, &[port(Protocol::Tcp)]).await.unwrap();
    network.publish(node, pod, &[port(Protocol::Tcp), port(Protocol::Udp)]).await.unwrap();
    let (connected, accepted) = tokio::join!(tokio::net::TcpStream::connect((node, 8080)), listener.accept());
    assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    network.dismiss(tap, other).await.unwrap();
    assert!(output("nft", &["list", "ruleset"]).contains(&format!("198.18.0.4 . udp . 8080 : 127.0.0.1 . {pod_port}")));
    network.dismiss(tap, pod).await.unwrap();
    assert!(!output("nft", &["list", "ruleset"]).contains(". 8080 :"));
}
