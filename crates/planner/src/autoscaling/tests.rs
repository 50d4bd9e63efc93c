//! Whole decisions of autoscalers, from answers to writes.

use isopod_types::Key;
use isopod_types::workload::Deployment;
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn autoscaler(metrics: Value) -> HorizontalPodAutoscaler {
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "x", "uid": "h", "generation": 2},
        "spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 10, "metrics": metrics},
    }))
    .unwrap()
}

fn target() -> Target {
    Target::named::<Deployment>(Key::new("x", "web"))
}

fn pods(count: usize) -> Vec<Pod> {
    let pod = |number: usize| {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(0)}]);
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "100Mi"}}}]},
            "status": {"phase": "Running", "startTime": at(0), "conditions": ready},
        }))
        .unwrap()
    };
    (0..count).map(pod).collect()
}

fn usage(count: usize, cpu: &str) -> Value {
    let item = |number: usize| json!({"metadata": {"name": format!("p{number}")}, "timestamp": at(9_990), "window": "30s", "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "50Mi"}}]});
    json!({"items": (0..count).map(item).collect::<Vec<_>>()})
}

fn scale(replicas: usize) -> Value {
    json!({"spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=web"}})
}

/// Answers every question: scales by the number of pods, all else with this document.
fn answers(autoscaler: &HorizontalPodAutoscaler, replicas: usize, document: Result<Value, String>) -> Answers {
    let (mut answers, target) = (Answers::new(), target());
    for _ in 0..2 {
        for path in questions(autoscaler, Some(&target), &answers) {
            let answer = if path.ends_with("/scale") { Ok(scale(replicas)) } else { document.clone() };
            answers.insert(path, answer);
        }
    }
    assert!(questions(autoscaler, Some(&target), &answers).is_empty());
    answers
}

fn decide(autoscaler: &HorizontalPodAutoscaler, replicas: usize, document: Result<Value, String>) -> Plan {
    let (pods, target) = (pods(replicas), target());
    let answers = answers(autoscaler, replicas, document);
    let refs: Vec<&Pod> = pods.iter().collect();
    let world = World { autoscaler, target: Some(&target), answers: &answers, pods: &refs, now: at(10_000) };
    let mut history = History::default();
    plan(world, &mut history)
}

/// The new size, `TYPE=STATUS:REASON` of the conditions, and the reasons of the events.
fn summary(plan: &Plan) -> (Option<i64>, Vec<String>, Vec<&'static str>) {
    let (mut size, mut conditions, mut events) = (None, Vec::new(), Vec::new());
    for write in &plan.writes {
        match write {
            Write::Patch { subresource: "scale", patch, .. } => size = patch["spec"]["replicas"].as_i64(),
            Write::Patch { patch, .. } => {
                let text = |one: &Value| {
                    format!(
                        "{}={}:{}",
                        one["type"].as_str().unwrap(),
                        one["status"].as_str().unwrap(),
                        one["reason"].as_str().unwrap()
                    )
                };
                conditions = patch["status"]["conditions"].as_array().unwrap().iter().map(text).collect();
            }
            Write::Event { reason, .. } => events.push(reason.reason),
            other => panic!("{other:?}"),
        }
    }
    (size, conditions, events)
}

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn check(metrics: Value, document: Result<Value, String>, size: Option<i64>, active: &str) {
    let plan = decide(&autoscaler(metrics.clone()), 2, document);
    let (found, conditions, _) = summary(&plan);
    assert_eq!(found, size, "{metrics}");
    assert!(conditions.contains(&format!("ScalingActive={active}")), "{metrics}: {conditions:?}");
    assert_eq!(plan.again_at, Some(at(10_015)));
}

#[test]
fn every_sort_of_metric_is_followed() {
    const FOUND: &str = "True:ValidMetricFound";
    check(json!([cpu(50)]), Ok(usage(2, "900m")), Some(4), FOUND);
    check(json!([cpu(50)]), Ok(usage(2, "520m")), None, FOUND);
    let container = json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    check(container, Ok(usage(2, "750m")), Some(3), FOUND);
    let memory = json!([{"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "25Mi"}}}]);
    check(memory, Ok(usage(2, "1m")), Some(4), FOUND);
    let values = |all: &[&str]| {
        let item = |(number, value): (usize, &&str)| json!({"describedObject": {"name": format!("p{number}")}, "value": value});
        Ok(json!({"items": all.iter().enumerate().map(item).collect::<Vec<_>>()}))
    };
    let pods = json!([{"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]);
    check(pods, values(&["20", "10"]), Some(3), FOUND);
    let object = json!([{"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "in"}, "target": {"type": "Value", "value": "100"}}}]);
    check(object, values(&["150"]), Some(3), FOUND);
    let external = json!([{"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}}]);
    check(external, values(&["15", "25"]), Some(4), FOUND);
}

#[test]
fn questions_are_asked_where_the_answers_are() {
    let external =
        json!({"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}}}});
    let object = json!({"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "in"}}});
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "qps"}}});
    let autoscaler = autoscaler(json!([cpu(50), external, object, pods]));
    let target = target();
    let first = questions(&autoscaler, Some(&target), &Answers::new());
    assert_eq!(first, ["/apis/apps/v1/namespaces/x/deployments/web/scale"]);
    let known = Answers::from([(first[0].clone(), Ok(scale(2)))]);
    assert_eq!(
        questions(&autoscaler, Some(&target), &known),
        [
            "/apis/metrics.k8s.io/v1beta1/namespaces/x/pods?labelSelector=app%3Dweb",
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/x/queue?labelSelector=q%3Da",
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/ingresses.networking.k8s.io/in/hits",
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/pods/*/qps?labelSelector=app%3Dweb",
        ]
    );
    assert_eq!(selector(Some(&target), &known).unwrap().match_labels["app"], "web");
}

#[test]
fn what_is_missing_is_said() {
    check(json!([cpu(50)]), Err("not found".into()), None, "False:FailedGetResourceMetric");
    let none = decide(&autoscaler(json!([cpu(50)])), 0, Ok(usage(0, "1")));
    assert!(summary(&none).1.contains(&"ScalingActive=False:ScalingDisabled".to_owned()));
    let many = decide(&autoscaler(json!([cpu(50)])), 12, Ok(usage(12, "1")));
    assert_eq!((summary(&many).0, summary(&many).2), (Some(10), vec!["SuccessfulRescale"]));
    let mut history = History::default();
    let autoscaler = autoscaler(json!([cpu(50)]));
    let world = World { autoscaler: &autoscaler, target: None, answers: &Answers::new(), pods: &[], now: at(1) };
    let lost = plan(world, &mut history);
    assert_eq!(summary(&lost), (None, vec!["AbleToScale=False:FailedGetScale".to_owned()], vec!["FailedGetScale"]));
}

/// One metric that cannot be had does not hold up another that wants more, but nothing falls while one is unknown.
#[test]
fn unknown_metrics_hold_the_number_up() {
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    check(json!([cpu(50), pods]), Ok(usage(2, "900m")), Some(4), "True:ValidMetricFound");
    check(json!([cpu(50), pods]), Ok(usage(2, "100m")), None, "False:FailedGetPodsMetric");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Under a constant load a number that was left never comes back, and in the end it stays.
    #[test]
    fn a_constant_load_never_makes_it_flap(start in 1..10usize, load in 1..20_000i64, percent in 20..100i64) {
        let autoscaler = autoscaler(json!([cpu(percent)]));
        let (target, mut history, mut sizes) = (target(), History::default(), vec![start]);
        for round in 0..120 {
            let replicas = *sizes.last().unwrap();
            let pods = pods(replicas);
            let each = format!("{}m", load / i64::try_from(replicas).unwrap());
            let answers = answers(&autoscaler, replicas, Ok(usage(replicas, &each)));
            let refs: Vec<&Pod> = pods.iter().collect();
            let world = World { autoscaler: &autoscaler, target: Some(&target), answers: &answers, pods: &refs, now: at(10_000 + 15 * round) };
            let size = summary(&plan(world, &mut history)).0;
            sizes.push(size.map_or(replicas, |size| usize::try_from(size).unwrap()));
        }
        let mut numbers = sizes.clone();
        numbers.dedup();
        let distinct: std::collections::BTreeSet<&usize> = numbers.iter().collect();
        prop_assert_eq!(distinct.len(), numbers.len(), "{:?}", sizes);
        // It may fall more than once, as rounding has it, each time after five minutes.
        prop_assert!(sizes[100..].iter().all(|size| *size == sizes[120]), "{sizes:?}");
    }
}
