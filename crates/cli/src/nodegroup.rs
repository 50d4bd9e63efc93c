//! `isopod create|get|scale|delete nodegroup`. Flags are eksctl's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use isopod_types::cluster_config::NodeGroupConfig;
use isopod_types::own::{NodeGroup, NodeGroupSpec};
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::ClusterName;
use crate::cluster::{self, Places};
use crate::progress::{done, info, table, warn};
use crate::server;

const GROUPS: &str = "/apis/isopod.dev/v1alpha1/nodegroups";

/// Longest time that nodes are waited for.
const WAIT: Duration = Duration::from_secs(180);

/// Flags of `create nodegroup`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    cluster: ClusterName,
    /// Name of the group.
    #[arg(long)]
    name: String,
    /// Size of the nodes.
    #[arg(short = 't', long, default_value = "m5.large")]
    node_type: String,
    /// Nodes to begin with.
    #[arg(short = 'N', long, default_value_t = 2)]
    nodes: i64,
    /// Nodes there are at least; default: --nodes.
    #[arg(short = 'm', long)]
    nodes_min: Option<i64>,
    /// Nodes there are at most; default: --nodes.
    #[arg(short = 'M', long)]
    nodes_max: Option<i64>,
    /// Disk of a node in GiB.
    #[arg(long, default_value_t = 80)]
    node_volume_size: i64,
    /// Labels of the nodes, such as `tier=db,disk=fast`.
    #[arg(long, value_delimiter = ',')]
    node_labels: Vec<String>,
}

/// Flags of `scale nodegroup`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    cluster: ClusterName,
    /// Name of the group.
    #[arg(long)]
    name: String,
    /// Nodes there are to be.
    #[arg(short = 'N', long)]
    nodes: i64,
    /// Nodes there are at least.
    #[arg(short = 'm', long)]
    nodes_min: Option<i64>,
    /// Nodes there are at most.
    #[arg(short = 'M', long)]
    nodes_max: Option<i64>,
}

/// Flags of `delete nodegroup`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    cluster: ClusterName,
    /// Name of the group.
    #[arg(long)]
    name: String,
}

pub(crate) async fn create(places: &Places, args: CreateArgs) -> anyhow::Result<()> {
    let cluster = places.find(&args.cluster)?;
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("--node-labels {text:?}: write KEY=VALUE"))?;
        anyhow::Ok((key.to_owned(), value.to_owned()))
    };
    let config = NodeGroupConfig {
        instance_type: Some(args.node_type),
        desired_capacity: Some(args.nodes),
        min_size: args.nodes_min,
        max_size: args.nodes_max,
        volume_size: Some(args.node_volume_size),
        labels: args.node_labels.iter().map(pair).collect::<anyhow::Result<BTreeMap<_, _>>>()?,
        ..NodeGroupConfig::default()
    };
    let client = cluster::client(&cluster).await?;
    let object = server::node_group_object(&args.name, &NodeGroupSpec::from(&config));
    if !server::create(&client, "nodegroups", &object).await? {
        info(format!("node group {:?} already exists on cluster {:?}", args.name, cluster.name));
        return Ok(());
    }
    wait(&client, &args.name).await?;
    done(format!("created node group {:?} on cluster {:?}", args.name, cluster.name));
    Ok(())
}

/// Waits until a group has its size; says what keeps it from that when it takes too long.
pub(crate) async fn wait(client: &Client, name: &str) -> anyhow::Result<()> {
    let mut last = NodeGroup::default();
    let settled = follow(client, name, |group| {
        // The phase may be that of the size before.
        let count = |nodes: i64| usize::try_from(nodes).ok();
        let fine = group.is_some_and(|NodeGroup { status, spec, .. }| {
            [status.nodes, status.ready_nodes].map(count) == [Some(spec.wanted()); 2] && status.phase == "ACTIVE"
        });
        last = group.cloned().unwrap_or_default();
        let wanted = last.spec.wanted();
        info(format!("node group {name:?}: {} of {wanted} nodes ready", last.status.ready_nodes));
        fine || !last.status.message.is_empty()
    });
    if tokio::time::timeout(WAIT, settled).await.is_err() {
        warn(format!("node group {name:?} is still {}; kubectl get nodes says more", last.status.phase));
    } else if !last.status.message.is_empty() {
        warn(format!("node group {name:?}: {}", last.status.message));
    }
    Ok(())
}

/// Follows a group until `enough` says so; it is told None when the group is gone.
async fn follow(client: &Client, name: &str, mut enough: impl FnMut(Option<&NodeGroup>) -> bool) -> anyhow::Result<()> {
    let uri = format!(
        "{GROUPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3D{name}"
    );
    let events = client.request_events::<Value>(http::Request::get(uri).body(Vec::new())?).await?;
    futures::pin_mut!(events);
    let (mut seen, mut before) = (false, None);
    while let Some(event) = events.next().await {
        let group = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(NodeGroup::deserialize(&object)?),
            WatchEvent::Deleted(_) => None,
            // All there is was sent.
            WatchEvent::Bookmark(_) if !seen => None,
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => bail!("node group {name:?}: {}", status.message),
        };
        seen = true;
        let news = group.as_ref().map(|group| (group.status.clone(), group.spec.clone()));
        if (before.as_ref() != Some(&news) && enough(group.as_ref())) || group.is_none() {
            return Ok(());
        }
        before = Some(news);
    }
    bail!("the API server ended the watch of node group {name:?}")
}

pub(crate) async fn get(places: &Places, of: &ClusterName) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<NodeGroup>,
    }
    let client = cluster::client(&places.find(of)?).await?;
    let list: List = client.request(http::Request::get(GROUPS).body(Vec::new())?).await?;
    let row = |group: &NodeGroup| {
        let NodeGroupSpec { instance_type, min_size, max_size, desired_size, .. } = &group.spec;
        let ready = format!("{}/{}", group.status.ready_nodes, group.status.nodes);
        let numbers = [min_size, max_size, desired_size].map(ToString::to_string);
        let [min, max, desired] = numbers;
        vec![group.metadata.name.clone(), group.status.phase.clone(), min, max, desired, ready, instance_type.clone()]
    };
    let rows: Vec<_> = list.items.iter().map(row).collect();
    table(&["NODEGROUP", "STATUS", "MIN SIZE", "MAX SIZE", "DESIRED CAPACITY", "READY", "INSTANCE TYPE"], &rows);
    Ok(())
}

pub(crate) async fn scale(places: &Places, args: ScaleArgs) -> anyhow::Result<()> {
    let cluster = places.find(&args.cluster)?;
    let client = cluster::client(&cluster).await?;
    let mut spec = json!({"desiredSize": args.nodes});
    for (field, value) in [("minSize", args.nodes_min), ("maxSize", args.nodes_max)] {
        if let Some(value) = value {
            spec[field] = json!(value);
        }
    }
    let request =
        http::Request::patch(format!("{GROUPS}/{}", args.name)).header("content-type", "application/merge-patch+json");
    let request = request.body(json!({"spec": spec}).to_string().into_bytes())?;
    if let Err(error) = client.request::<Value>(request).await {
        return Err(explained(error, &cluster.name, &args.name));
    }
    wait(&client, &args.name).await?;
    done(format!("scaled node group {:?} on cluster {:?} to {} nodes", args.name, cluster.name, args.nodes));
    Ok(())
}

fn explained(error: kube::Error, cluster: &str, name: &str) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            anyhow::anyhow!("cluster {cluster:?} has no node group {name:?}\nhint: isopod get nodegroup")
        }
        kube::Error::Api(status) if status.code == 422 => {
            anyhow::anyhow!("{}\nhint: change the bounds with --nodes-min and --nodes-max", status.message)
        }
        other => other.into(),
    }
}

pub(crate) async fn delete(places: &Places, args: DeleteArgs) -> anyhow::Result<()> {
    let cluster = places.find(&args.cluster)?;
    let client = cluster::client(&cluster).await?;
    let request = http::Request::delete(format!("{GROUPS}/{}", args.name)).body(Vec::new())?;
    if let Err(error) = client.request::<Value>(request).await {
        return Err(explained(error, &cluster.name, &args.name));
    }
    info(format!("draining the nodes of node group {:?}", args.name));
    let gone = follow(&client, &args.name, |_| false);
    if tokio::time::timeout(WAIT, gone).await.is_err() {
        warn(format!(
            "node group {:?} still has pods that cannot be moved; kubectl get pods -A -o wide says which",
            args.name
        ));
        return Ok(());
    }
    done(format!("deleted node group {:?} on cluster {:?}", args.name, cluster.name));
    Ok(())
}
