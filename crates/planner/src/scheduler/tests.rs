//! Tables of the scheduler as a whole.

mod random;

use super::*;
use crate::persistent_volumes::NO_PROVISIONER;

/// A cluster as the scheduler sees it, and what it decided.
#[derive(Default)]
struct Cluster {
    scheduler: Scheduler,
    pods: BTreeMap<Key, Pod>,
    nodes: BTreeMap<String, Node>,
    claims: BTreeMap<Key, isopod_types::storage::PersistentVolumeClaim>,
    volumes: BTreeMap<Key, isopod_types::storage::PersistentVolume>,
    classes: BTreeMap<Key, isopod_types::storage::StorageClass>,
    budgets: Vec<Budget>,
    revision: u64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `base` with the fields of `more` merged in.
fn merged(mut base: Value, more: Value) -> Value {
    match (&mut base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                let before = base.remove(&key).unwrap_or(Value::Null);
                base.insert(key, merged(before, value));
            }
        }
        (base, more) => *base = more,
    }
    base
}

/// 4 CPUs, 8 GiB, 10 pods.
fn node(name: &str, more: Value) -> Value {
    let base = json!({
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merged(base, more)
}

fn zoned(name: &str, zone: &str) -> Value {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

fn tainted(name: &str, key: &str, value: &str) -> Value {
    node(name, json!({"spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]}}))
}

/// A pod that asks for some CPU.
fn pod(name: &str, cpu: &str, more: Value) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
    let base = json!({
        "metadata": {"name": name, "namespace": "x", "uid": format!("uid-{name}")},
        "spec": {"schedulerName": "default-scheduler", "containers": [container]},
    });
    merged(base, more)
}

fn on(node: &str) -> Value {
    json!({"spec": {"nodeName": node}})
}

impl Cluster {
    fn with(nodes: &[Value], pods: &[Value]) -> Self {
        let mut cluster = Self::default();
        nodes.iter().for_each(|node| cluster.put_node(node));
        pods.iter().for_each(|pod| cluster.put(pod));
        cluster
    }

    fn put_node(&mut self, value: &Value) {
        let node: Node = serde_json::from_value(value.clone()).unwrap();
        let before = self.nodes.insert(node.metadata.name.clone(), node.clone());
        self.scheduler.node_changed(before.as_ref(), Some(&node));
    }

    fn put(&mut self, value: &Value) {
        self.put_pod(serde_json::from_value(value.clone()).unwrap());
    }

    fn put_pod(&mut self, mut pod: Pod) {
        self.revision += 1;
        pod.metadata.resource_version = self.revision.to_string();
        let before = self.pods.insert(pod.key(), pod.clone());
        self.scheduler.pod_changed(before.as_ref(), Some(&pod));
    }

    /// A process that starts anew learns everything from its watches, in any order.
    fn restart(&mut self) {
        self.scheduler = Scheduler::default();
        for pod in self.pods.values() {
            self.scheduler.pod_changed(None, Some(pod));
        }
        for node in self.nodes.values() {
            self.scheduler.node_changed(None, Some(node));
        }
    }

    fn delete(&mut self, name: &str) {
        let pod = self.pods.remove(&Key::new("x", name)).unwrap();
        self.scheduler.pod_changed(Some(&pod), None);
    }

    /// One decision.
    fn decide(&mut self, now: i64) -> (Option<String>, Plan) {
        let storage = Storage { claims: &self.claims, volumes: &self.volumes, classes: &self.classes };
        let explain = |_: &Pod| "no profile".to_owned();
        let budgets = || self.budgets.clone();
        let world = World { pods: &self.pods, storage, budgets: &budgets, explain: &explain };
        let (key, plan) = self.scheduler.decide(world, at(now));
        (key.map(|key| key.name), plan)
    }

    /// Carries out what a plan says about pods, as the API and the node agents would.
    fn carry_out(&mut self, plan: &Plan) {
        for write in &plan.writes {
            match write {
                Write::Bind { target, node, .. } => {
                    let mut pod = self.pods[&target.key].clone();
                    pod.spec.node_name.clone_from(node);
                    self.put_pod(pod);
                }
                Write::Delete { target, .. } if target.kind == "Pod" => self.delete(&target.key.name.clone()),
                Write::Patch { target, patch, .. } if target.kind == "Pod" => {
                    let mut pod = self.pods[&target.key].clone();
                    if let Some(node) = patch["status"].get("nominatedNodeName") {
                        pod.status.nominated_node_name = node.as_str().unwrap_or_default().into();
                    }
                    if let Ok(conditions) = serde_json::from_value(patch["status"]["conditions"].clone()) {
                        pod.status.conditions = conditions;
                    }
                    self.put_pod(pod);
                }
                _ => {}
            }
        }
    }
}

/// The node a plan binds to, or the message it gives.
fn outcome(plan: &Plan) -> String {
    let of = |write: &Write| match write {
        Write::Bind { node, .. } => Some(node.clone()),
        Write::Event { reason, .. } if reason.reason == "FailedScheduling" => Some(reason.message.clone()),
        _ => None,
    };
    plan.writes.iter().find_map(of).unwrap_or_default()
}

/// What becomes of the pod `p` in a cluster; messages are compared up to what they say of preemption.
fn check(nodes: &[Value], pods: &[Value], p: Value, expected: &str) {
    let mut cluster = Cluster::with(nodes, pods);
    cluster.put(&pod("p", "1", p.clone()));
    let (key, plan) = cluster.decide(0);
    assert_eq!(key.as_deref(), Some("p"));
    let found = outcome(&plan);
    let found = found.split(" preemption: ").next().unwrap_or_default();
    let found = found.strip_suffix(" no profile, and the cluster has no worker nodes").unwrap_or(found);
    assert_eq!(found, expected, "{p}");
}

fn affinity(kind: &str, how: &str, rules: Value) -> Value {
    json!({"spec": {"affinity": {kind: {format!("{how}DuringSchedulingIgnoredDuringExecution"): rules}}}})
}

fn near(kind: &str, app: &str, topology: &str) -> Value {
    affinity(kind, "required", json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology}]))
}

fn app(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";

#[test]
fn resources_and_taints() {
    let full = [pod("a", "4", on("n1")), pod("b", "3500m", on("n2"))];
    let two = [node("n1", json!({})), node("n2", json!({}))];
    check(&two, &[], json!({}), "n1");
    check(&two, &full[..1], json!({}), "n2");
    check(&two, &full, json!({}), "0/2 nodes are available: 2 Insufficient cpu.");
    let ended = merged(full[0].clone(), json!({"status": {"phase": "Succeeded"}}));
    check(&two, &[ended, full[1].clone()], json!({}), "n1");
    let small = node("n1", json!({"status": {"allocatable": {"pods": "1"}}}));
    let reasons = "0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods.";
    check(&[small], &full[..1], json!({}), reasons);
    let cluster = [node("n1", json!({})), tainted("n2", "k", "v"), tainted("n3", "k", "v")];
    let reasons = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).";
    check(&cluster, &full[..1], json!({}), reasons);
    let tolerant = json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}});
    check(&cluster, &full[..1], tolerant, "n2");
    let cordoned = node("n1", json!({"spec": {"unschedulable": true}}));
    check(std::slice::from_ref(&cordoned), &[], json!({}), "0/1 nodes are available: 1 node(s) were unschedulable.");
    let tolerant =
        json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}});
    check(&[cordoned], &[], tolerant, "n1");
    let gpu = json!({"spec": {"overhead": {"example.com/gpu": "1"}}});
    check(&two, &[], gpu.clone(), "0/2 nodes are available: 2 Insufficient example.com/gpu.");
    let equipped = node("n3", json!({"status": {"allocatable": {"example.com/gpu": "1"}}}));
    check(&[two[0].clone(), equipped.clone()], &[], gpu.clone(), "n3");
    let user = pod("u", "0", merged(gpu.clone(), on("n3")));
    check(&[equipped], &[user], gpu, "0/1 nodes are available: 1 Insufficient example.com/gpu.");
}

#[test]
fn nodes_made_for_one_pod_are_counted_by_their_taint() {
    let fargate = |name: &str| tainted(name, "eks.amazonaws.com/compute-type", "fargate");
    let mut cluster = Cluster::with(&[fargate("f1"), fargate("f2")], &[pod("p", "1", json!({}))]);
    let (_, plan) = cluster.decide(0);
    assert_eq!(
        outcome(&plan),
        "0/2 nodes are available: 2 node(s) had untolerated taint(s). \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. \
         no profile, and the cluster has no worker nodes"
    );
    let mut cluster = Cluster::with(&[], &[pod("p", "1", json!({}))]);
    let message = "no nodes available to schedule pods: no profile, and the cluster has no worker nodes";
    assert_eq!(outcome(&cluster.decide(0).1), message);
    cluster.put_node(&fargate("f1"));
    assert_eq!(cluster.decide(100).0, None, "a node that repels it wakes nobody");
    cluster.put_node(&node("n1", json!({})));
    assert_eq!(outcome(&cluster.decide(100).1), "n1");
}

#[test]
fn labels_ports_and_names() {
    let nodes = [zoned("n1", "a"), zoned("n2", "b")];
    check(&nodes, &[], json!({"spec": {"nodeSelector": {ZONE: "b"}}}), "n2");
    let unmet = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    check(&nodes, &[], json!({"spec": {"nodeSelector": {ZONE: "c"}}}), unmet);
    let wish =
        json!([{"weight": 1, "preference": {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["b"]}]}}]);
    check(&nodes, &[], affinity("nodeAffinity", "preferred", wish), "n2");
    let named =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]});
    check(&nodes, &[], affinity("nodeAffinity", "required", named.clone()), "n2");
    let reasons = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector.";
    check(&nodes, &[pod("a", "4", on("n2"))], affinity("nodeAffinity", "required", named), reasons);
    let port = json!({"spec": {"containers": [{"ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    check(&nodes, &[pod("a", "1", merged(port.clone(), on("n1")))], port.clone(), "n2");
    let taken = [pod("a", "1", merged(port.clone(), on("n1"))), pod("b", "1", merged(port.clone(), on("n2")))];
    let reasons = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.";
    check(&nodes, &taken, port, reasons);
}

#[test]
fn company() {
    let nodes = [zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b")];
    let web = |name: &str, node: &str| pod(name, "1", merged(app("web"), on(node)));
    let host = "kubernetes.io/hostname";
    check(&nodes, &[web("a", "n2")], near("podAffinity", "web", host), "n2");
    check(
        &nodes,
        &[web("a", "n2")],
        merged(near("podAffinity", "web", ZONE), json!({"spec": {"nodeSelector": {host: "n1"}}})),
        "n1",
    );
    let none = "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.";
    check(&nodes, &[], near("podAffinity", "web", ZONE), none);
    check(&nodes, &[], merged(app("web"), near("podAffinity", "web", ZONE)), "n1");
    check(&nodes, &[web("a", "n1")], near("podAntiAffinity", "web", ZONE), "n3");
    let none = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.";
    check(&nodes, &[web("a", "n1"), web("b", "n3")], near("podAntiAffinity", "web", ZONE), none);
    let shy = pod("a", "1", merged(near("podAntiAffinity", "web", ZONE), on("n1")));
    check(&nodes, std::slice::from_ref(&shy), app("web"), "n3");
    check(&nodes, &[shy], app("db"), "n2");
    let everywhere = [("n1", "a"), ("n3", "b")]
        .map(|(node, name)| pod(name, "1", merged(near("podAntiAffinity", "web", ZONE), on(node))));
    let none = "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules.";
    check(&nodes, &everywhere, app("web"), none);
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": host});
    let likes = affinity("podAffinity", "preferred", json!([{"weight": 100, "podAffinityTerm": term}]));
    check(&nodes, &[web("a", "n3")], likes, "n3");
    let avoids = affinity("podAntiAffinity", "preferred", json!([{"weight": 100, "podAffinityTerm": term}]));
    check(&nodes, &[web("a", "n1"), web("b", "n2")], avoids.clone(), "n3");
    let avoided = [("n1", "a"), ("n2", "b")].map(|(node, name)| pod(name, "1", merged(avoids.clone(), on(node))));
    check(&nodes, &avoided, app("web"), "n3");
}

#[test]
fn spreading() {
    let nodes = [zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b"), node("n4", json!({}))];
    let spread = |skew: i64, more: Value| {
        let rule = json!({"maxSkew": skew, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        merged(app("web"), json!({"spec": {"topologySpreadConstraints": [merged(rule, more)]}}))
    };
    let web = |name: &str, node: &str| pod(name, "0", merged(app("web"), on(node)));
    check(&nodes, &[web("a", "n1")], spread(1, json!({})), "n3");
    check(&nodes, &[web("a", "n3")], spread(1, json!({})), "n1");
    let full = [web("a", "n1"), pod("b", "4", on("n3"))];
    let reasons = "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints \
                   (missing required label), 2 node(s) didn't match pod topology spread constraints.";
    check(&nodes, &full, spread(1, json!({})), reasons);
    check(&nodes, &full, spread(2, json!({})), "n2");
    let ending = merged(web("a", "n1"), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(&nodes[..3], &[ending, full[1].clone()], spread(1, json!({})), "n2");
    let selected = merged(spread(1, json!({})), json!({"spec": {"nodeSelector": {ZONE: "a"}}}));
    check(&nodes, &[web("a", "n1")], selected.clone(), "n2");
    let ignoring =
        merged(spread(1, json!({"nodeAffinityPolicy": "Ignore"})), json!({"spec": {"nodeSelector": {ZONE: "a"}}}));
    let reasons = "0/4 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match pod topology spread constraints.";
    check(&nodes, &[web("a", "n1")], ignoring, reasons);
    let many = spread(1, json!({"minDomains": 3}));
    let reasons = "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.";
    check(&nodes[..3], &[web("a", "n1"), web("b", "n3")], many, reasons);
    let soft = spread(1, json!({"whenUnsatisfiable": "ScheduleAnyway"}));
    check(&nodes[..3], &[web("a", "n1"), web("b", "n2")], soft, "n3");
}

#[test]
fn siblings_are_spread_without_being_told() {
    let nodes = [zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b")];
    let mut cluster = Cluster::with(&nodes, &[]);
    let owner = json!({"metadata": {"ownerReferences": [{"uid": "set", "controller": true}]}});
    let mut zones: Vec<String> = Vec::new();
    for i in 0..3 {
        cluster.put(&pod(&format!("p{i}"), "100m", owner.clone()));
        let (_, plan) = cluster.decide(0);
        cluster.carry_out(&plan);
        zones.push(outcome(&plan));
    }
    zones.sort();
    assert_eq!(zones, ["n1", "n2", "n3"]);
}

#[test]
fn gates_hold_and_what_is_said_is_said_once() {
    let mut cluster = Cluster::with(
        &[node("n1", json!({}))],
        &[pod("g", "1", json!({"spec": {"schedulingGates": [{"name": "a"}]}}))],
    );
    assert_eq!(cluster.decide(0).0, None);
    cluster.put(&pod("g", "9", json!({})));
    let (_, plan) = cluster.decide(0);
    assert_eq!(plan.writes.len(), 2, "{plan:?}");
    cluster.carry_out(&plan);
    assert_eq!(cluster.decide(0).0, None, "its own status wakes it not");
    let (key, plan) = cluster.decide(400);
    assert_eq!((key.as_deref(), plan.writes.len()), (Some("g"), 0), "{plan:?}");
}

/// Who goes for the pod `p` (priority 10, 2 CPUs), and what is said.
fn check_preemption(pods: &[Value], more: Value, budgets: Vec<Budget>, victims: &[&str], node_or_message: &str) {
    let mut cluster = Cluster::with(&[node("n1", json!({})), node("n2", json!({}))], pods);
    cluster.budgets = budgets;
    cluster.put(&pod("p", "2", merged(json!({"spec": {"priority": 10}}), more)));
    let (_, plan) = cluster.decide(0);
    let deleted = plan.writes.iter().filter_map(|write| match write {
        Write::Delete { target, .. } => Some(target.key.name.as_str()),
        _ => None,
    });
    assert_eq!(deleted.collect::<Vec<_>>(), victims, "{plan:?}");
    let nominated = plan.writes.iter().find_map(|write| match write {
        Write::Patch { patch, .. } => patch["status"]["nominatedNodeName"].as_str(),
        _ => None,
    });
    let message = outcome(&plan);
    let said = nominated.unwrap_or_else(|| message.split("preemption: ").last().unwrap_or_default());
    assert_eq!(said, node_or_message);
    if nominated.is_some() {
        cluster.carry_out(&plan);
        assert_eq!(outcome(&cluster.decide(20).1), node_or_message, "room was made");
    }
}

#[test]
fn lesser_pods_make_room() {
    let rank = |name: &str, cpu: &str, node: &str, priority: i64| {
        pod(name, cpu, merged(on(node), json!({"spec": {"priority": priority}})))
    };
    let others = [rank("a", "4", "n1", 5), rank("b", "2", "n2", 1), rank("c", "2", "n2", 2)];
    check_preemption(&others, json!({}), vec![], &["b"], "n2");
    check_preemption(
        &[rank("a", "4", "n1", 1), rank("b", "2", "n2", 1), rank("c", "2", "n2", 2)],
        json!({}),
        vec![],
        &["a"],
        "n1",
    );
    check_preemption(
        &[rank("a", "4", "n1", 3), rank("b", "1", "n2", 3), rank("c", "3", "n2", 3)],
        json!({}),
        vec![],
        &["a"],
        "n1",
    );
    let never = json!({"spec": {"preemptionPolicy": "Never"}});
    check_preemption(&others, never, vec![], &[], "not eligible due to preemptionPolicy=Never.");
    let equals = [rank("a", "4", "n1", 10), rank("b", "4", "n2", 11)];
    let none = "0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    check_preemption(&equals, json!({}), vec![], &[], none);
    let elsewhere = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "n1"}}});
    let none = "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.";
    check_preemption(&equals, elsewhere.clone(), vec![], &[], none);
    check_preemption(&others, elsewhere, vec![], &["a"], "n1");
    let budget = Budget {
        namespace: "x".into(),
        selector: serde_json::from_value(json!({"matchLabels": {"app": "db"}})).unwrap(),
        disruptions_allowed: 0,
        ..Budget::default()
    };
    let protected = merged(rank("b", "4", "n2", 1), app("db"));
    check_preemption(&[others[0].clone(), protected.clone()], json!({}), vec![], &["b"], "n2");
    check_preemption(&[others[0].clone(), protected], json!({}), vec![budget], &["a"], "n1");
}

#[test]
fn nominated_pods_keep_their_room() {
    let victim = pod("v", "4", merged(on("n1"), json!({"metadata": {"uid": "v"}})));
    let mut cluster = Cluster::with(&[node("n1", json!({}))], &[victim]);
    cluster.put(&pod("p", "4", json!({"spec": {"priority": 10}})));
    let (_, plan) = cluster.decide(0);
    let status = plan.writes.iter().find_map(|write| match write {
        Write::Patch { target, patch, .. } if target.key.name == "v" => Some(&patch["status"]["conditions"][0]),
        _ => None,
    });
    assert_eq!(status.unwrap()["reason"], "PreemptionByScheduler");
    cluster.carry_out(&plan);
    cluster.put(&pod("late", "1", json!({})));
    let (key, plan) = cluster.decide(0);
    assert_eq!(key.as_deref(), Some("late"));
    assert!(outcome(&plan).starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{plan:?}");
    assert_eq!(outcome(&cluster.decide(20).1), "n1");
}

#[test]
fn room_that_does_not_help_any_more_is_given_up() {
    let victim = pod("v", "4", on("n1"));
    let mut cluster = Cluster::with(&[node("n1", json!({}))], &[victim]);
    cluster.put(&pod("p", "4", json!({"spec": {"priority": 10}})));
    let (_, plan) = cluster.decide(0);
    cluster.carry_out(&plan);
    cluster.put(&pod("higher", "4", merged(on("n1"), json!({"spec": {"priority": 20}}))));
    let (key, plan) = cluster.decide(20);
    let given_up = plan.writes.iter().any(|write| match write {
        Write::Patch { patch, .. } => patch["status"].get("nominatedNodeName") == Some(&Value::Null),
        _ => false,
    });
    assert!(key.as_deref() == Some("p") && given_up, "{plan:?}");
    cluster.carry_out(&plan);
    cluster.delete("higher");
    cluster.put(&pod("other", "1", json!({"spec": {"priority": 0}})));
    assert_eq!(outcome(&cluster.decide(20).1), "n1", "nothing is kept for the first");
}

#[test]
fn what_was_not_carried_out_is_tried_again() {
    let mut cluster = Cluster::with(&[node("n1", json!({}))], &[pod("p", "3", json!({})), pod("q", "3", json!({}))]);
    assert_eq!(outcome(&cluster.decide(0).1), "n1");
    assert!(outcome(&cluster.decide(0).1).contains("Insufficient cpu"), "the first is assumed");
    cluster.scheduler.retry(&cluster.pods[&Key::new("x", "p")], at(0));
    assert_eq!(cluster.decide(0).0, None);
    assert_eq!(outcome(&cluster.decide(2).1), "n1");
}

#[test]
fn claims_decide_where() {
    let mut cluster = Cluster::with(&[zoned("n1", "a"), zoned("n2", "b")], &[]);
    let class = |name: &str, mode: &str, provisioner: &str| {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner}),
        )
        .unwrap()
    };
    cluster.classes.insert(Key::cluster("wait"), class("wait", "WaitForFirstConsumer", "ebs.csi.aws.com"));
    cluster.classes.insert(Key::cluster("hand"), class("hand", "WaitForFirstConsumer", NO_PROVISIONER));
    cluster.classes.insert(Key::cluster("now"), class("now", "Immediate", "ebs.csi.aws.com"));
    let mut claim = |name: &str, class: &str, volume: &str| {
        let bound = if volume.is_empty() { json!({}) } else { json!({"pv.kubernetes.io/bind-completed": "yes"}) };
        let claim = json!({"metadata": {"name": name, "namespace": "x", "uid": name, "annotations": bound},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        cluster.claims.insert(Key::new("x", name), serde_json::from_value(claim).unwrap());
    };
    for (name, class, volume) in
        [("bound", "now", "v"), ("gone", "now", "w"), ("late", "now", ""), ("made", "wait", ""), ("found", "hand", "")]
    {
        claim(name, class, volume);
    }
    let at_b = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["b"]}]}]}});
    for (name, class, phase) in [("v", "now", "Bound"), ("f", "hand", "Available")] {
        let volume = json!({"metadata": {"name": name, "uid": name}, "status": {"phase": phase},
            "spec": {"nodeAffinity": at_b, "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}});
        cluster.volumes.insert(Key::cluster(name), serde_json::from_value(volume).unwrap());
    }
    for (name, expected) in [
        ("bound", "n2"),
        ("late", "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption"),
        (
            "gone",
            "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
        ),
        ("none", "0/2 nodes are available: persistentvolumeclaim \"none\" not found. preemption"),
        ("made", ""),
        ("found", ""),
    ] {
        let volumes = json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": name}}]}});
        cluster.put(&pod(name, "1", volumes));
        let (_, plan) = cluster.decide(0);
        assert!(outcome(&plan).starts_with(expected), "{name}: {plan:?}");
        match name {
            "made" => assert!(
                matches!(&plan.writes[..], [Write::Patch { patch, .. }] if patch["metadata"]["annotations"][crate::persistent_volumes::SELECTED_NODE].is_string())
            ),
            "found" => assert!(
                matches!(&plan.writes[..], [Write::Patch { target, patch, .. }] if target.key.name == "f" && patch["spec"]["claimRef"]["uid"] == "found")
            ),
            _ => {}
        }
    }
}
