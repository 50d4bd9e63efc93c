//! Tables of sizes, and what holds whatever pods there are.

use super::*;
use crate::scheduler::World as Scheduling;
use isopod_types::Object;
use isopod_types::names::{DRAINING_ANNOTATION, NODEGROUP_FINALIZER};
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use proptest::prelude::*;

/// A cluster, and what happened to its groups.
#[derive(Default)]
struct Cluster {
    groups: BTreeMap<String, NodeGroup>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<Key, Pod>,
    daemon_sets: Vec<DaemonSet>,
    claims: BTreeMap<Key, PersistentVolumeClaim>,
    volumes: BTreeMap<Key, PersistentVolume>,
    budgets: Vec<Budget>,
    hosts: Vec<Host>,
    scheduler: Scheduler,
    history: History,
    minute: i64,
}

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn host(cpu: &str) -> Host {
    of(json!({"metadata": {"name": "h"}, "status": {"allocatable": {"cpu": cpu, "memory": "4Ti"}}}))
}

/// `name type min..max desired`, then words: `degraded`, `tainted`, `grown@minute`.
fn group(text: &str) -> NodeGroup {
    let words: Vec<&str> = text.split(' ').collect();
    let (min, max) = words[2].split_once("..").unwrap();
    let number = |text: &str| text.parse::<i64>().unwrap();
    let taints = words.contains(&"tainted").then(|| json!({"key": "k", "value": "v", "effect": "NoSchedule"}));
    let grown = words.iter().find_map(|word| word.strip_prefix("grown@")).map(|minute| at(number(minute)));
    of(json!({
        "metadata": {"name": words[0], "uid": words[0], "finalizers": [NODEGROUP_FINALIZER],
            "annotations": grown.map_or(json!({}), |at| json!({GROWN_ANNOTATION: at}))},
        "spec": {"instanceType": words[1], "minSize": number(min), "maxSize": number(max), "desiredSize": number(words[3]),
            "volumeSizeGib": 20, "labels": {"group": words[0]}, "taints": Vec::from_iter(taints)},
        "status": {"phase": if words.contains(&"degraded") { "DEGRADED" } else { "ACTIVE" }},
    }))
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

/// `name node cpu`, node `-` for none, then words: `bare` (no controller), `daemon`, `safe=...`, `on=group`, `gated`, `priority=...`,
/// `claim=...`.
fn pod(text: &str) -> Pod {
    let words: Vec<&str> = text.split(' ').collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let kind = if words.contains(&"daemon") { "DaemonSet" } else { "ReplicaSet" };
    let owner = (!words.contains(&"bare")).then(|| json!({"kind": kind, "name": "o", "uid": "o", "controller": true}));
    let node = if words[1] == "-" { "" } else { words[1] };
    let claim = value("claim").map(|name| json!({"name": "v", "persistentVolumeClaim": {"claimName": name}}));
    let waits = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
    of(json!({
        "metadata": {"name": words[0], "namespace": "x", "uid": words[0], "labels": {"app": words[0]},
            "annotations": value("safe").map_or(json!({}), |safe| json!({SAFE_TO_EVICT: safe})),
            "ownerReferences": Vec::from_iter(owner)},
        "spec": {"schedulerName": "default-scheduler", "nodeName": node,
            "priority": value("priority").map_or(0, |text| text.parse().unwrap()),
            "schedulingGates": if words.contains(&"gated") { json!([{"name": "g"}]) } else { json!([]) },
            "nodeSelector": value("on").map_or(json!({}), |group| json!({"group": group})),
            "volumes": Vec::from_iter(claim),
            "containers": [{"name": "c", "resources": {"requests": {"cpu": words[2]}}}]},
        "status": {"conditions": if node.is_empty() { waits } else { json!([]) }},
    }))
}

impl Cluster {
    /// Nodes are `group/name` with words: `coming`, `late`, `closed` (ready, still tainted), `draining`, `unneeded@minute`, `kept`.
    fn of(groups: &[&str], nodes: &[&str], pods: &[&str]) -> Self {
        let mut cluster = Self { minute: 100, hosts: vec![host("1k")], ..Self::default() };
        for text in groups {
            let group = group(text);
            cluster.groups.insert(group.metadata.name.clone(), group);
        }
        nodes.iter().for_each(|text| cluster.add(text));
        pods.iter().for_each(|text| cluster.put(pod(text)));
        cluster
    }

    fn add(&mut self, text: &str) {
        let mut words = text.split(' ');
        let (group, name) = words.next().unwrap().split_once('/').unwrap();
        let words: Vec<&str> = words.collect();
        let imagined =
            super::super::making::imagined(&self.groups[group], 0, &ClusterSpec::default(), &[&host("1k")], &[]);
        let mut node = imagined.unwrap();
        let is_late = words.contains(&"late");
        let comes = words.contains(&"coming") || is_late;
        node.metadata.name = name.to_owned();
        node.metadata.uid = name.to_owned();
        node.metadata.labels.insert("kubernetes.io/hostname".into(), name.to_owned());
        node.metadata.creation_timestamp = Some(at(if is_late { self.minute - 20 } else { self.minute }));
        if comes {
            node.status.allocatable.clear();
        }
        if words.contains(&"closed") {
            node.spec.taints = of(json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
        }
        node.status.conditions = of(json!([{"type": "Ready", "status": if comes { "False" } else { "True" }}]));
        for (word, annotation, value) in [
            ("draining", DRAINING_ANNOTATION, at(0).to_string()),
            ("kept", "cluster-autoscaler.kubernetes.io/scale-down-disabled", "true".to_owned()),
        ] {
            if words.contains(&word) {
                node.metadata.annotations.insert(annotation.to_owned(), value);
            }
        }
        if let Some(minute) = words.iter().find_map(|word| word.strip_prefix("unneeded@")) {
            node.metadata.annotations.insert(UNNEEDED_ANNOTATION.into(), at(minute.parse().unwrap()).to_string());
        }
        self.put_node(node);
    }

    fn put_node(&mut self, node: Node) {
        let before = self.nodes.insert(node.metadata.name.clone(), node.clone());
        self.scheduler.node_changed(before.as_ref(), Some(&node));
    }

    fn put(&mut self, pod: Pod) {
        let before = self.pods.insert(pod.key(), pod.clone());
        self.scheduler.pod_changed(before.as_ref(), Some(&pod));
    }

    fn plan(&mut self) -> Plan {
        let classes = BTreeMap::new();
        let hosts: Vec<&Host> = self.hosts.iter().collect();
        let groups: Vec<&NodeGroup> = self.groups.values().collect();
        let nodes: Vec<&Node> = self.nodes.values().collect();
        let waiting: Vec<&Pod> = self.pods.values().filter(|pod| is_unschedulable(pod)).collect();
        let daemon_sets: Vec<&DaemonSet> = self.daemon_sets.iter().collect();
        let world = World {
            cluster: &ClusterSpec::default(),
            hosts: &hosts,
            groups: &groups,
            nodes: &nodes,
            waiting: &waiting,
            pods_on: &|node| self.pods.values().filter(|pod| pod.spec.node_name == node).collect(),
            daemon_sets: &daemon_sets,
            budgets: &|| self.budgets.clone(),
            scheduler: &self.scheduler,
            storage: Storage { claims: &self.claims, volumes: &self.volumes, classes: &classes },
            now: at(self.minute),
        };
        plan(&world, &mut self.history)
    }

    /// One line for each write.
    fn told(&mut self) -> Vec<String> {
        let line = |write: &Write| match write {
            Write::Patch { target, patch, .. } if target.kind == "NodeGroup" => {
                let grown = if patch["metadata"].is_null() { "" } else { " grown" };
                format!("{} {}{grown}", target.key.name, patch["spec"]["desiredSize"])
            }
            Write::Patch { target, patch, .. } => {
                let since = &patch["metadata"]["annotations"][UNNEEDED_ANNOTATION];
                format!("{} {}", target.key.name, if since.is_null() { "needed" } else { "unneeded" })
            }
            Write::Event { target, reason, .. } => format!("{}: {}", target.key.name, reason.message),
            other => panic!("{other:?}"),
        };
        self.plan().writes.iter().map(line).collect()
    }
}

fn check(groups: &[&str], nodes: &[&str], pods: &[&str], expected: &[&str]) {
    assert_eq!(Cluster::of(groups, nodes, pods).told(), expected, "{groups:?} {nodes:?} {pods:?}");
}

const FITS: &str = "p - 1";

#[test]
fn groups_grow_for_pods_that_fit_nowhere() {
    let one = "pod triggered scale-up: [{w 1->2 (max: 3)}]";
    let full = "full w-a 1500m";
    let grown = format!("p: {one}");
    check(&["w t3.medium 1..3 1"], &["w/w-a"], &[full, FITS], &["w 2 grown", &grown]);
    // Two CPUs a node, a little less for pods: one of each, or three halves, and no more than the most.
    let three = ["p1 - 1", "p2 - 1", "p3 - 1"];
    let all = |text: &str| ["p1: ", "p2: ", "p3: "].map(|pod| format!("{pod}pod triggered scale-up: [{{{text}}}]"));
    let [a, b, c] = all("w 0->3 (max: 5)");
    check(&["w t3.medium 0..5 0"], &[], &three, &["w 3 grown", &a, &b, &c]);
    let [a, b, _] = all("w 0->2 (max: 2)");
    let limit = "p3: pod didn't trigger scale-up: 1 max node group size reached";
    check(&["w t3.medium 0..2 0"], &[], &three, &["w 2 grown", &a, &b, limit]);
    let halves = ["p1 - 600m", "p2 - 600m", "p3 - 600m"];
    let [a, b, c] = all("w 0->1 (max: 5)");
    check(&["w t3.medium 0..5 0"], &[], &halves, &["w 1 grown", &a, &b, &c]);
    // The important ones come first.
    let ranked = ["p1 - 1", "p2 - 1 priority=5"];
    let limit = "p1: pod didn't trigger scale-up: 1 max node group size reached";
    let first = "p2: pod triggered scale-up: [{w 0->1 (max: 1)}]";
    check(&["w t3.medium 0..1 0"], &[], &ranked, &["w 1 grown", first, limit]);
}

#[test]
fn nodes_that_are_coming_and_pods_that_need_none_do_not_count() {
    let group = ["w t3.medium 0..3 1"];
    check(&group, &["w/w-a coming"], &[FITS], &[]);
    check(&group, &["w/w-a closed"], &[FITS], &[]);
    check(&group, &[], &[FITS], &[]);
    check(&group, &["w/w-a"], &[FITS], &[]);
    let second = "p2: pod triggered scale-up: [{w 1->2 (max: 3)}]";
    check(&group, &["w/w-a coming"], &["p1 - 1", "p2 - 1"], &["w 2 grown", second]);
    // A node that does not come up is not waited for.
    let first = "p: pod triggered scale-up: [{w 1->2 (max: 3)}]";
    check(&group, &["w/w-a late"], &[FITS], &["w 2 grown", first]);
    for waiting in ["p - 1 gated", "p - 1 priority=-11"] {
        check(&["w t3.medium 0..3 0"], &[], &[waiting], &[]);
    }
    // Sizes that are fixed stay what they are, and nothing is said.
    for fixed in ["w t3.medium 0..0 0", "w t3.medium 2..2 2"] {
        check(&[fixed], &[], &["p - 3"], &[]);
    }
}

#[test]
fn what_a_group_cannot_help_is_said_once() {
    let refused = |reason: &str| format!("p: pod didn't trigger scale-up: {reason}");
    for (group, pod, reason) in [
        ("w t3.medium 0..3 0", "p - 3", "1 Insufficient cpu"),
        ("w t3.medium 0..3 0 tainted", FITS, "1 node(s) had untolerated taint(s)"),
        ("w t3.medium 0..3 0", "p - 1 on=other", "1 node(s) didn't match Pod's node affinity/selector"),
        ("w t3.medium 0..3 1 degraded", FITS, "1 in backoff after failed scale-up"),
        ("w t3.medium 0..3 0", "p - 1 claim=c", "1 persistentvolumeclaim \"c\" not found"),
    ] {
        let mut cluster = Cluster::of(&[group], &[], &[pod]);
        assert_eq!(cluster.told(), [refused(reason)]);
        assert!(cluster.told().is_empty(), "{reason}");
    }
    // One node more has room on the host, two have not.
    let mut cluster = Cluster::of(&["w t3.medium 0..9 1"], &["w/w-a"], &["f w-a 1500m", FITS, "q - 1"]);
    cluster.hosts = vec![host("5")];
    let grown = "p: pod triggered scale-up: [{w 1->2 (max: 9)}]";
    let refused_too = "q: pod didn't trigger scale-up: 1 no host has room for another node";
    assert_eq!(cluster.told(), ["w 2 grown", grown, refused_too]);
    let daemon = json!({"metadata": {"name": "d", "uid": "d", "namespace": "x"}, "spec": {"template": {"spec": {
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}}});
    let mut cluster = Cluster::of(&["w t3.medium 0..3 0"], &[], &[FITS]);
    cluster.daemon_sets.push(of(daemon));
    assert_eq!(cluster.told(), [refused("1 Insufficient cpu")]);
}

#[test]
fn of_several_groups_the_one_that_wastes_least_grows() {
    let groups = ["a m5.4xlarge 0..3 0", "b t3.medium 0..3 0", "c t3.medium 0..3 0"];
    check(&groups, &[], &[FITS], &["b 1 grown", "p: pod triggered scale-up: [{b 0->1 (max: 3)}]"]);
    // What the one cannot help, another may.
    let told = [
        "b 1 grown",
        "c 1 grown",
        "p: pod triggered scale-up: [{b 0->1 (max: 3)}]",
        "q: pod triggered scale-up: [{c 0->1 (max: 3)}]",
    ];
    check(&groups, &[], &[FITS, "q - 1 on=c"], &told);
}

#[test]
fn nodes_that_nobody_needs_go_after_ten_minutes() {
    let group = ["w t3.medium 1..3 2"];
    let light = ["p w-a 300m", "q w-b 1"];
    // Empty ones and light ones are noted, those that are needed again too.
    check(&group, &["w/w-a", "w/w-b"], &["q w-b 1"], &["w-a unneeded"]);
    check(&group, &["w/w-a", "w/w-b"], &["d w-a 100m daemon", "q w-b 1"], &["w-a unneeded"]);
    check(&group, &["w/w-a", "w/w-b"], &light, &["w-a unneeded"]);
    check(&group, &["w/w-a unneeded@80", "w/w-b"], &["p w-a 1", "q w-b 1"], &["w-a needed"]);
    for (node, expected) in
        [("w/w-a unneeded@90", &["w 1"][..]), ("w/w-a unneeded@91", &[]), ("w/w-a unneeded@90 kept", &["w-a needed"])]
    {
        check(&group, &[node, "w/w-b"], &light, expected);
    }
    let nodes = ["w/w-a unneeded@80", "w/w-b"];
    check(&["w t3.medium 1..3 2 grown@91"], &nodes, &light, &[]);
    check(&["w t3.medium 1..3 2 grown@90"], &nodes, &light, &["w 1"]);
    // Not below the least, not while another is going, not while one is coming.
    check(&["w t3.medium 2..3 2"], &nodes, &light, &["w-a needed"]);
    check(&group, &["w/w-a unneeded@80", "w/w-b", "w/w-c draining"], &light, &[]);
    check(&["w t3.medium 1..3 3"], &["w/w-a unneeded@80", "w/w-b", "w/w-c coming"], &light, &[]);
}

#[test]
fn some_pods_keep_their_node() {
    let volume = |source: &str| json!({"metadata": {"name": "v"}, "spec": {source: {"path": "/d"}}});
    for (pod, source, expected) in [
        ("p w-a 300m", "", "w 1"),
        ("p w-a 300m safe=false", "", "w-a needed"),
        ("p w-a 300m bare", "", "w-a needed"),
        ("p w-a 300m bare safe=true", "", "w 1"),
        ("p w-a 970m", "", "w-a needed"),
        ("p w-a 300m claim=c", "local", "w-a needed"),
        ("p w-a 300m claim=c", "hostPath", "w-a needed"),
        ("p w-a 300m claim=c", "nfs", "w 1"),
        ("p w-a 300m on=other", "", "w-a needed"),
    ] {
        let mut cluster = Cluster::of(&["w t3.medium 1..3 2"], &["w/w-a unneeded@80", "w/w-b"], &[pod, "q w-b 1"]);
        let annotations = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let claim: PersistentVolumeClaim = of(
            json!({"metadata": {"name": "c", "namespace": "x", "annotations": annotations}, "spec": {"volumeName": "v"}}),
        );
        cluster.claims.insert(claim.key(), claim);
        let volume: PersistentVolume = of(volume(source));
        cluster.volumes.insert(volume.key(), volume);
        assert_eq!(cluster.told(), [expected], "{pod} {source}");
        let selector = json!({"matchLabels": {"app": "p"}});
        cluster.budgets.push(Budget { namespace: "x".into(), selector: Some(of(selector)), ..Budget::default() });
        assert_eq!(cluster.told(), ["w-a needed"], "{pod} {source}");
    }
}

impl Cluster {
    /// Does what a plan of sizes, the groups' controllers and the scheduler do until nothing changes, then a minute passes.
    fn step(&mut self) {
        for write in self.plan().writes {
            match write {
                Write::Patch { target, patch, .. } if target.kind == "NodeGroup" => {
                    let group = self.groups.get_mut(&target.key.name).unwrap();
                    group.spec.desired_size = patch["spec"]["desiredSize"].as_i64().unwrap();
                    if let Some(at) = patch["metadata"]["annotations"][GROWN_ANNOTATION].as_str() {
                        group.metadata.annotations.insert(GROWN_ANNOTATION.into(), at.to_owned());
                    }
                }
                Write::Patch { target, patch, .. } => {
                    let mut node = self.nodes[&target.key.name].clone();
                    node.metadata.annotations.remove(UNNEEDED_ANNOTATION);
                    if let Some(since) = patch["metadata"]["annotations"][UNNEEDED_ANNOTATION].as_str() {
                        node.metadata.annotations.insert(UNNEEDED_ANNOTATION.into(), since.to_owned());
                    }
                    self.put_node(node);
                }
                _ => {}
            }
        }
        self.resize();
        self.schedule();
        self.minute += 1;
    }

    fn members(&self, group: &str) -> Vec<Node> {
        self.nodes.values().filter(|node| is_member(&self.groups[group], node)).cloned().collect()
    }

    fn resize(&mut self) {
        for (name, group) in self.groups.clone() {
            let mut members = self.members(&name);
            for number in members.len()..group.spec.wanted() {
                self.add(&format!("{name}/{name}-{}-{number}", self.minute));
            }
            let pods_on = |node: &str| self.pods.values().filter(|pod| pod.spec.node_name == node).collect();
            members.sort_by_key(|node| super::super::worth(node, &pods_on));
            members.truncate(members.len().saturating_sub(group.spec.wanted()));
            for node in members {
                self.scheduler.node_changed(Some(&node), None);
                self.nodes.remove(&node.metadata.name);
                let gone = |pod: &&Pod| pod.spec.node_name == node.metadata.name;
                for mut pod in self.pods.values().filter(gone).cloned().collect::<Vec<_>>() {
                    self.scheduler.pod_changed(Some(&pod), None);
                    self.pods.remove(&pod.key());
                    pod.spec.node_name.clear();
                    pod.status.conditions = self::pod(FITS).status.conditions;
                    self.put(pod);
                }
            }
        }
    }

    fn schedule(&mut self) {
        let classes = BTreeMap::new();
        loop {
            let world = Scheduling {
                pods: &self.pods,
                storage: Storage { claims: &self.claims, volumes: &self.volumes, classes: &classes },
                budgets: &Vec::new,
                explain: &|_| String::new(),
            };
            let (Some(_), plan) = self.scheduler.decide(world, at(self.minute)) else { return };
            for write in plan.writes {
                if let Write::Bind { target, node, .. } = write {
                    let mut pod = self.pods[&target.key].clone();
                    pod.spec.node_name = node;
                    self.put(pod);
                }
            }
        }
    }

    fn sizes(&self) -> Vec<i64> {
        self.groups.values().map(|group| group.spec.desired_size).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever pods there are: sizes stay between the least and the most; pods that fit a node of a group that could grow get
    /// one; and pods that do not change lead to sizes that do not change.
    #[test]
    fn sizes_stay_in_their_bounds_and_settle(
        cpus in proptest::collection::vec(1..22i64, 0..12),
        bounds in proptest::collection::vec((0..3i64, 0..4i64), 1..3),
        later in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let types = ["t3.medium", "m5.xlarge"];
        let groups: Vec<String> = bounds
            .iter()
            .enumerate()
            .map(|(i, (min, more))| format!("g{i} {} {min}..{} {}", types[i], min + more, min + more / 2))
            .collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let mut cluster = Cluster::of(&groups, &[], &[]);
        for (i, cpu) in cpus.iter().enumerate() {
            cluster.put(pod(&format!("p{i} - {}m", cpu * 100)));
        }
        for goes in [false, true] {
            if goes {
                let keys: Vec<Key> = cluster.pods.keys().zip(&later).filter(|(_, goes)| **goes).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    let gone = cluster.pods.remove(&key).unwrap();
                    cluster.scheduler.pod_changed(Some(&gone), None);
                }
            }
            for _ in 0..240 {
                cluster.step();
                for group in cluster.groups.values() {
                    let spec = &group.spec;
                    prop_assert!((spec.min_size..=spec.max_size).contains(&spec.desired_size), "{spec:?}");
                }
            }
            let settled = cluster.sizes();
            for _ in 0..60 {
                cluster.step();
                prop_assert_eq!(&cluster.sizes(), &settled);
            }
            let room = cluster.groups.values().any(|group| is_scaled(group) && group.spec.desired_size < group.spec.max_size);
            let waiting: Vec<_> = cluster.pods.values().filter(|pod| pod.spec.node_name.is_empty()).collect();
            let small = waiting.iter().any(|pod| crate::scheduler::resources::requested(&pod.spec).cpu_milli <= 1900);
            prop_assert!(!(room && small), "{:?} wait", waiting.len());
        }
    }
}
