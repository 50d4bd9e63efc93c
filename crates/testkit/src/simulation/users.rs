//! What users do to a simulated cluster: requests, as they would send them.

use serde_json::{Value, json};

use super::pairs::{HEALTHY_MIN, PROTECTED, SERVERLESS, protected};
use super::random::Random;
use super::world::{
    BUDGETS, CLAIMS, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, NODES, PODS, REPLICA_SETS, STATEFUL_SETS, VOLUMES,
    World, is_deleting, key, name, number, text,
};

/// One request of a user.
#[derive(Debug)]
pub(super) enum Act {
    /// Creates an object in a collection.
    Create(String, Value),
    /// Merges a patch into the object at a path.
    Patch(String, Value),
    /// Deletes the object at a path, with a policy.
    Delete(String, Option<&'static str>),
}

pub(super) const NAMESPACE: &str = "work";
pub(super) const NODE_NAMES: [&str; 3] = ["n0", "n1", "n2"];

/// A collection's path within the namespace.
fn within(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((root, plural)) if !matches!(path, NODES | VOLUMES) => format!("{root}/namespaces/{NAMESPACE}/{plural}"),
        _ => path.to_owned(),
    }
}

/// The path of an object of a collection.
pub(super) fn at(path: &str, object: &Value) -> String {
    format!("{}/{}", within(path), name(object))
}

fn template(app: &str, policy: &str) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "250m"}}});
    json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": policy, "containers": [container]}})
}

fn create(path: &str, name: &str, spec: Value) -> Act {
    Act::Create(within(path), json!({"metadata": {"name": name}, "spec": spec}))
}

fn new_deployment(random: &mut Random, name: &str) -> Act {
    let surge = random.below(3);
    let missing = if surge == 0 { 1 + random.below(2) } else { random.below(3) };
    let strategy = match random.below(5) {
        0 => json!({"type": "Recreate"}),
        _ => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}),
    };
    let spec = json!({"replicas": random.below(5), "strategy": strategy, "selector": {"matchLabels": {"app": name}}, "template": template(name, "Always")});
    create(DEPLOYMENTS, name, spec)
}

fn new_stateful_set(random: &mut Random, name: &str) -> Act {
    let policy = if random.chance(500) { "Parallel" } else { "OrderedReady" };
    let spec = json!({"replicas": random.below(4), "serviceName": name, "podManagementPolicy": policy, "selector": {"matchLabels": {"app": name}}, "template": template(name, "Always")});
    create(STATEFUL_SETS, name, spec)
}

fn new_daemon_set(name: &str) -> Act {
    let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, "Always")});
    create(DAEMON_SETS, name, spec)
}

fn new_job(random: &mut Random, name: &str) -> Act {
    let mode = if random.chance(500) { "Indexed" } else { "NonIndexed" };
    let (completions, parallelism) = (1 + random.below(4), 1 + random.below(3));
    let spec = json!({"completions": completions, "parallelism": parallelism, "completionMode": mode, "backoffLimit": random.below(6), "suspend": random.chance(200), "template": template(name, "Never")});
    create(JOBS, name, spec)
}

fn new_cron_job(random: &mut Random, name: &str) -> Act {
    let policy = random.pick(&["Allow", "Forbid", "Replace"]).unwrap_or("Allow");
    let job = json!({"completions": 1 + random.below(2), "backoffLimit": random.below(3), "template": template(name, "Never")});
    let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": random.below(3), "jobTemplate": {"spec": job}});
    create(CRON_JOBS, name, spec)
}

fn new_claim(name: &str) -> Act {
    let asked = json!({"requests": {"storage": "1Gi"}});
    create(CLAIMS, name, json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": asked}))
}

fn new_volume(name: &str) -> Act {
    let place = json!({"driver": "example.com", "volumeHandle": name});
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "csi": place});
    create(VOLUMES, name, spec)
}

/// What there is from the beginning, and no user changes: what a budget protects, and what goes to Fargate.
pub(super) fn furniture() -> Vec<Act> {
    let own = |plural: &str, kind: &str, name: &str, spec: Value| {
        let object =
            json!({"apiVersion": "isopod.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        Act::Create(format!("/apis/isopod.dev/v1alpha1/{plural}"), object)
    };
    let subnets = json!([{"id": "subnet-a", "cidr": "10.1.0.0/20", "zone": "a"}]);
    let selectors = json!([{"namespace": NAMESPACE, "labels": {"app": SERVERLESS}}]);
    let deployment = |name: &str, replicas: usize| {
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, "Always")});
        create(DEPLOYMENTS, name, spec)
    };
    let allocatable = json!({"status": {"allocatable": {"cpu": "64", "memory": "256Gi"}}});
    let budget = json!({"minAvailable": HEALTHY_MIN, "selector": {"matchLabels": {"app": PROTECTED}}});
    vec![
        own("clusters", "Cluster", "c", json!({"region": "local", "vpc": {"cidr": "10.1.0.0/16", "subnets": subnets}})),
        own("fargateprofiles", "FargateProfile", "fp", json!({"selectors": selectors})),
        own("hosts", "Host", "h", json!({"address": "10.0.0.1"})),
        Act::Patch("/apis/isopod.dev/v1alpha1/hosts/h/status".into(), allocatable),
        create(BUDGETS, "b0", budget),
        deployment(PROTECTED, HEALTHY_MIN + 1),
        deployment(SERVERLESS, 2),
    ]
}

/// A protected pod that somebody wants to go, and the request.
pub(super) fn eviction(random: &mut Random, world: &World) -> Option<(Value, Act)> {
    let pods: Vec<Value> = protected(world).filter(|pod| !is_deleting(pod)).cloned().collect();
    let pod = random.pick(&pods)?;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name(&pod)}});
    let path = format!("{}/eviction", at(PODS, &pod));
    Some((pod, Act::Create(path, eviction)))
}

/// A node that is ready, and its status.
pub(super) fn new_node(node: &str) -> (Act, Act) {
    let amounts = json!({"cpu": "2", "memory": "8Gi", "pods": "20"});
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}});
    let labels = json!({"kubernetes.io/hostname": node});
    let made = Act::Create(NODES.into(), json!({"metadata": {"name": node, "labels": labels}}));
    (made, Act::Patch(format!("{NODES}/{node}/status"), status))
}

fn change(random: &mut Random, path: &str, object: &Value) -> Act {
    let place = at(path, object);
    let replicas = number(object, "/spec/replicas");
    match (path, random.below(8)) {
        (_, 0) => Act::Delete(place, random.pick(&[Some("Background"), Some("Foreground"), None]).flatten()),
        (JOBS, _) => Act::Patch(place, json!({"spec": {"suspend": object["spec"]["suspend"] != true}})),
        (CLAIMS | CRON_JOBS, _) => Act::Delete(place, None),
        (DEPLOYMENTS | STATEFUL_SETS, 1..=3) => {
            let scaled = (replicas + 1 + i64::try_from(random.below(4)).unwrap_or(0)) % 5;
            let scaled = if path == STATEFUL_SETS { scaled % 4 } else { scaled };
            Act::Patch(place, json!({"spec": {"replicas": scaled}}))
        }
        _ => {
            let round = json!({"round": random.below(4).to_string()});
            Act::Patch(place, json!({"spec": {"template": {"metadata": {"annotations": round}}}}))
        }
    }
}

/// What users do next.
pub(super) fn act(random: &mut Random, world: &World) -> Option<Act> {
    let there = |path: &str, wanted: &str| world.all(path).find(|found| name(found) == wanted).cloned();
    let (path, wanted) = match random.below(17) {
        0..=3 => (DEPLOYMENTS, random.pick(&["d0", "d1"])?),
        4 | 5 => (STATEFUL_SETS, "s0"),
        6 => (DAEMON_SETS, "e0"),
        7 | 8 => (JOBS, random.pick(&["j0", "j1"])?),
        9 => (PODS, ""),
        10 => (REPLICA_SETS, ""),
        11 => (CRON_JOBS, "c0"),
        12 | 13 => (CLAIMS, random.pick(&["k0", "k1", "k2"])?),
        14 | 15 => (VOLUMES, random.pick(&["v0", "v1"])?),
        _ => (NODES, random.pick(&NODE_NAMES)?),
    };
    if matches!(path, PODS | REPLICA_SETS) {
        let all: Vec<Value> = world.all(path).filter(|found| key(found).namespace == NAMESPACE).cloned().collect();
        let chosen = random.pick(&all).filter(|found| !is_deleting(found))?;
        return Some(Act::Delete(at(path, &chosen), None));
    }
    Some(match (path, there(path, wanted)) {
        (NODES, Some(node)) => Act::Delete(at(NODES, &node), None),
        (VOLUMES, Some(volume)) if text(&volume, "/status/phase") != "Released" => return None,
        (VOLUMES, Some(volume)) => Act::Delete(at(VOLUMES, &volume), None),
        (VOLUMES, None) => new_volume(wanted),
        (CLAIMS, None) => new_claim(wanted),
        (CRON_JOBS, None) => new_cron_job(random, wanted),
        (NODES, None) => new_node(wanted).0,
        (_, Some(object)) => change(random, path, &object),
        (DEPLOYMENTS, None) => new_deployment(random, wanted),
        (STATEFUL_SETS, None) => new_stateful_set(random, wanted),
        (JOBS, None) => new_job(random, wanted),
        (_, None) => new_daemon_set(wanted),
    })
}
