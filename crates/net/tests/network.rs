//! A real network on this host: needs root; says so and passes when it has not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::process::Command;

use isopod_net::{Network, Protocol, RoutingTable, Settings, Virtual};

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

    let again = Network::open(&settings).await.unwrap();
    again.sweep(&[tap.clone()].into()).await.unwrap();
    assert!(output("ip", &["-o", "link"]).contains(&tap));
    again.sweep(&Default::default()).await.unwrap();
    assert!(!output("ip", &["-o", "link"]).contains(&tap));

    Network::teardown(&settings).await.unwrap();
    assert_eq!((output("ip", &["-o", "link"]).lines().count(), output("nft", &["list", "tables"])), before);
}
