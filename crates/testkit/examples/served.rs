//! A cluster on simulated worker nodes, served on loopback until it is interrupted, for clients and test suites that bring
//! their own program: `cargo run -p isopod-testkit --example served -- DIRECTORY [PORT] [NODES]`. API server, controllers and
//! host agent are the real ones. Nothing runs in the pods: they have no output, no streams and no network, and end when told.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use isopod_testkit::TestCluster;
use serde_json::json;
use tokio::net::TcpListener;

/// Of each node; it offers 58 pods.
const INSTANCE_TYPE: &str = "m5.xlarge";

/// What the command line says.
struct Arguments {
    directory: PathBuf,
    port: u16,
    nodes: u32,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut given = std::env::args().skip(1);
    let directory = given.next().context("usage: served DIRECTORY [PORT] [NODES]")?.into();
    let port = given.next().map_or(Ok(6443), |port| port.parse()).context("PORT is not a port")?;
    let nodes = given.next().map_or(Ok(2), |nodes| nodes.parse()).context("NODES is not a number")?;
    Ok(Arguments { directory, port, nodes })
}

/// Worker nodes, and waits until they are ready.
async fn make_nodes(cluster: &TestCluster, nodes: u32) -> anyhow::Result<()> {
    let groups = "/apis/isopod.dev/v1alpha1/nodegroups";
    let spec = json!({
        "instanceType": INSTANCE_TYPE, "volumeSizeGib": 20, "minSize": nodes, "maxSize": nodes, "desiredSize": nodes,
    });
    let metadata = json!({"name": "simulated"});
    let group = json!({"apiVersion": "isopod.dev/v1alpha1", "kind": "NodeGroup", "metadata": metadata, "spec": spec});
    cluster.create(groups, group).await?;
    let path = format!("{groups}/simulated");
    cluster.wait_for(&path, "the nodes", |group| group["status"]["readyNodes"] == nodes).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { directory, port, nodes } = arguments()?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let address = listener.local_addr()?;
    let cluster = TestCluster::start("served").await?;
    let _agent = cluster.start_agent().await?;
    make_nodes(&cluster, nodes).await?;
    std::fs::create_dir_all(&directory)?;
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.api.admin_kubeconfig(&format!("https://{address}"), "simulated"))?;
    println!("KUBECONFIG={}", kubeconfig.display());
    let interrupted = async {
        // Without a signal handler there is no way to stop but a signal.
        let _ = tokio::signal::ctrl_c().await;
    };
    cluster.api.serve(vec![listener], interrupted).await?;
    Ok(())
}
