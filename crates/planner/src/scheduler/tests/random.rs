//! Whatever comes and goes, fails or starts anew: promises of the scheduler that hold after every step.

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Pod { cpu_tenths: i64, priority: i64, shy: bool, port: bool },
    Delete(usize),
    Decide,
    Lose,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..25i64, 0..3i64, any::<bool>(), any::<bool>())
            .prop_map(|(cpu_tenths, priority, shy, port)| Step::Pod { cpu_tenths, priority, shy, port }),
        1 => (0..40usize).prop_map(Step::Delete),
        4 => Just(Step::Decide),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever comes and goes, no node is given more than it has, no two pods that exclude each other meet, and the index
    /// says of every node what counting anew says.
    #[test]
    fn promises_are_never_more_than_there_is(steps in proptest::collection::vec(step(), 1..120)) {
        let mut cluster = Cluster::with(&[zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b")], &[]);
        let mut now = 0;
        for (i, step) in steps.into_iter().enumerate() {
            now += 1;
            match step {
                Step::Pod { cpu_tenths, priority, shy, port } => {
                    let mut more = json!({"spec": {"priority": priority}});
                    if shy {
                        more = merged(more, merged(app("shy"), near("podAntiAffinity", "shy", ZONE)));
                    }
                    if port {
                        more = merged(more, json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
                            "resources": {"requests": {"cpu": format!("{}m", cpu_tenths * 100)}}}]}}));
                    }
                    cluster.put(&pod(&format!("p{i}"), &format!("{}m", cpu_tenths * 100), more));
                }
                Step::Delete(nth) => {
                    if let Some(name) = cluster.pods.keys().nth(nth).map(|key| key.name.clone()) {
                        cluster.delete(&name);
                    }
                }
                Step::Decide => {
                    let (_, plan) = cluster.decide(now);
                    cluster.carry_out(&plan);
                }
                Step::Restart => cluster.restart(),
                Step::Lose => {
                    if let (Some(name), _) = cluster.decide(now) {
                        let key = Key::new("x", name);
                        if let Some(pod) = cluster.pods.get(&key) {
                            cluster.scheduler.retry(pod, at(now));
                        }
                    }
                }
            }
            holds(&cluster);
        }
    }
}

fn holds(cluster: &Cluster) {
    for name in cluster.nodes.keys() {
        let slot = cluster.scheduler.index.slot(name).unwrap();
        let known = cluster.scheduler.index.node(slot);
        let there: Vec<PodInfo> =
            cluster.pods.values().filter(|pod| pod.spec.node_name == *name).map(PodInfo::of).collect();
        let mut sum = resources::Resources::default();
        there.iter().for_each(|info| sum.add(&info.requested, 1));
        assert_eq!((known.requested.cpu_milli, known.pods.len()), (sum.cpu_milli, there.len()), "{name}");
        assert!(sum.cpu_milli <= 4000 && there.len() <= 10, "{name}: {sum:?}");
        assert!(there.iter().filter(|info| !info.ports.is_empty()).count() <= 1, "{name}: a port twice");
    }
    let zone_of = |pod: &Pod| cluster.nodes.get(&pod.spec.node_name).map(|node| node.metadata.labels[ZONE].clone());
    let shy = cluster.pods.values().filter(|pod| !pod.metadata.labels.is_empty());
    let mut zones: Vec<String> = shy.filter_map(zone_of).collect();
    let count = zones.len();
    zones.sort();
    zones.dedup();
    assert_eq!(zones.len(), count, "two shy pods in one zone");
}
