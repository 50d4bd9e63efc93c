//! Whole stories, with manifests of their own: a cluster of worker nodes and Fargate profiles.

use std::path::PathBuf;

use crate::support::{Cluster, kill};

const NAMESPACE: &str = "--namespace=tb-demo";

fn manifest(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/walkthroughs/mixed").join(name);
    path.to_str().unwrap().to_owned()
}

/// The text of a JSON path of an object of the story's namespace.
fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    cluster.kubectl(&["get", NAMESPACE, object, "-o", &format!("jsonpath={path}")])
}

fn nodes(cluster: &Cluster, selector: &str) -> usize {
    cluster.kubectl(&["get", "nodes", "--no-headers", "-l", selector]).lines().count()
}

fn fargate_nodes(cluster: &Cluster) -> usize {
    nodes(cluster, "eks.amazonaws.com/compute-type=fargate")
}

fn worker_nodes(cluster: &Cluster) -> usize {
    nodes(cluster, "eks.amazonaws.com/nodegroup=node-group")
}

/// The line that the database has written at each of its starts.
fn starts(cluster: &Cluster) -> usize {
    let read = cluster.try_kubectl(&["exec", NAMESPACE, "deploy/database", "--", "cat", "/data/log"]);
    crate::support::text(&read.stdout).lines().count()
}

fn create() -> Option<Cluster> {
    let cluster = Cluster::place("e2e-mixed")?;
    cluster.isopod(&["create", "cluster", "-f", &manifest("cluster.yaml")]);
    cluster.import_images();
    assert_eq!((worker_nodes(&cluster), fargate_nodes(&cluster)), (1, 0));
    cluster.kubectl(&["create", "namespace", "tb-demo"]);
    Some(cluster)
}

/// A claim of the default class waits for its first pod; one of an `Immediate` class does not.
fn claims_are_explained(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-f", &manifest("waiting.yaml")]);
    cluster.wait_until("the claim says why it waits", || {
        let told = cluster.kubectl(&["describe", "pvc", "waiting", NAMESPACE]);
        told.contains("gp2") && told.contains("waiting for first consumer to be created before binding")
    });
    cluster.kubectl(&["apply", "-f", &manifest("database.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "database", NAMESPACE, "--timeout=90s"]);
    assert_eq!(field(cluster, "pvc/mysql-data-disk", "{.status.phase}"), "Bound");
    assert_eq!(field(cluster, "pvc/waiting", "{.status.phase}"), "Pending");
}

/// Pods that a profile matches have nodes of their own; the others share the worker node. They reach each other.
fn pods_run_where_they_belong(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-f", &manifest("service.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "service", NAMESPACE, "--timeout=90s"]);
    assert_eq!((worker_nodes(cluster), fargate_nodes(cluster)), (1, 2));
    let of = |app: &str, path: &str| {
        cluster.kubectl(&["get", "pods", NAMESPACE, "-l", &format!("app={app}"), "-o", &format!("jsonpath={path}")])
    };
    assert!(of("database", "{.items[0].spec.nodeName}").starts_with("ip-"));
    assert!(of("service", "{.items[0].spec.nodeName}").starts_with("fargate-ip-"));
    let database = of("database", "{.items[0].status.podIP}");
    cluster.wait_until("the database answers the service", || {
        let page = format!("http://{database}:3306/log");
        let said = cluster.try_kubectl(&["exec", NAMESPACE, "deploy/service", "--", "wget", "-q", "-O", "-", &page]);
        crate::support::text(&said.stdout).contains("started")
    });
    for (replicas, fargate) in [("4", 4), ("1", 1)] {
        cluster.kubectl(&["scale", "deployment", "service", NAMESPACE, "--replicas", replicas]);
        cluster.wait_until("nodes come and go", || fargate_nodes(cluster) == fargate);
    }
}

/// What Fargate refuses works on a worker node, and data outlives its pod and the server.
fn the_worker_node_is_a_whole_one(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-f", &manifest("agent.yaml")]);
    cluster.kubectl(&["rollout", "status", "daemonset", "agent", NAMESPACE, "--timeout=90s"]);
    cluster.wait_until("the agent has the node's name and files", || {
        let said = cluster.kubectl(&["logs", NAMESPACE, "ds/agent"]);
        said.starts_with("ip-") && said.ends_with("seen\n")
    });
    assert_eq!(starts(cluster), 1);
    cluster.kubectl(&["delete", "pod", NAMESPACE, "-l", "app=database"]);
    cluster.kubectl(&["rollout", "status", "deployment", "database", NAMESPACE, "--timeout=90s"]);
    cluster.wait_until("the data is still there", || starts(cluster) == 2);
    kill(cluster.server_pid());
    cluster.isopod(&["start", "cluster", "--name", &cluster.name]);
    cluster.wait_until("pods go on", || starts(cluster) == 2);
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    assert_eq!(cluster.kubectl(&["get", "pods", NAMESPACE, "-o", &format!("jsonpath={restarts}")]), "0 0 0");
    let top = || cluster.try_kubectl(&["top", "node"]);
    cluster.wait_until("usage", || crate::support::text(&top().stdout).lines().count() == 3);
}

#[test]
fn worker_nodes_and_fargate_play_together() {
    let Some(cluster) = create() else { return };
    claims_are_explained(&cluster);
    pods_run_where_they_belong(&cluster);
    the_worker_node_is_a_whole_one(&cluster);
    cluster.isopod(&["scale", "nodegroup", "--cluster", &cluster.name, "--name", "node-group", "--nodes", "2"]);
    assert_eq!(worker_nodes(&cluster), 2);
    cluster.wait_until("an agent on each", || field(&cluster, "ds/agent", "{.status.numberReady}") == "2");
    let refused =
        cluster.try_isopod(&["scale", "nodegroup", "--cluster", &cluster.name, "--name", "node-group", "--nodes", "3"]);
    assert!(crate::support::text(&refused.stderr).contains("hint: change the bounds"), "{refused:?}");
    cluster.isopod(&["scale", "nodegroup", "--cluster", &cluster.name, "--name", "node-group", "--nodes", "1"]);
    assert_eq!(worker_nodes(&cluster), 1);
    cluster.kubectl(&["rollout", "status", "deployment", "database", NAMESPACE, "--timeout=90s"]);
    cluster.wait_until("the data moved with its pod, or stayed", || starts(&cluster) >= 2);
    cluster.isopod(&["delete", "nodegroup", "--cluster", &cluster.name, "--name", "node-group"]);
    assert_eq!(worker_nodes(&cluster), 0);
    cluster.wait_until("the pod says what it waits for", || {
        let said = cluster.kubectl(&["describe", "pod", NAMESPACE, "-l", "app=database"]);
        said.contains("FailedScheduling") && said.contains("untolerated taint")
    });
    cluster.kubectl(&["delete", "namespace", "tb-demo"]);
    cluster.wait_until("the volumes are gone", || cluster.count("pv") == 0);
    cluster.wait_until("no machine is left", || cluster.vm_pids().is_empty());
}
