//! Where the metrics of an autoscaler are asked for, and what the answers say.

use std::collections::BTreeMap;

use isopod_types::autoscaling::{HorizontalPodAutoscaler, MetricSpec, NamedMetric, ResourceMetric};
use isopod_types::pod::Pod;
use isopod_types::{Key, Quantity};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Answers;
use super::calculator::{Fleet, Recommendation, Sample, Wanted, by_share, by_use, by_value};

/// Where the use of pods is asked for.
const RESOURCE_METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
/// Where metrics of objects are asked for.
const CUSTOM_METRICS: &str = "/apis/custom.metrics.k8s.io/v1beta2";
/// Where metrics of the world outside are asked for.
const EXTERNAL_METRICS: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// What a metric recommends: a number, its name in words, and its part of the status.
#[derive(Debug)]
pub(super) struct Advice {
    pub(super) replicas: i64,
    pub(super) name: String,
    pub(super) status: Value,
}

/// A metric that cannot be had: reason and words.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What metrics are judged by.
pub(super) struct Scene<'a> {
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    pub(super) fleet: Fleet<'a>,
    /// The target's selector as text.
    pub(super) selector: &'a str,
    /// Pods as the target's status has them.
    pub(super) replicas: i64,
    pub(super) answers: &'a Answers,
}

fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(letter).collect()
}

fn query(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// The path at which a metric is asked for.
pub(super) fn path(key: &Key, metric: &MetricSpec, selector: &str) -> Option<String> {
    let namespace = &key.namespace;
    let series = |named: &NamedMetric| named.metric.selector.as_ref().map(ToString::to_string).unwrap_or_default();
    let own = ("labelSelector", selector.to_owned());
    Some(match metric.type_.as_str() {
        "Resource" | "ContainerResource" => format!("{RESOURCE_METRICS}/namespaces/{namespace}/pods{}", query(&[own])),
        "Pods" => {
            let named = metric.pods.as_ref()?;
            let pairs = query(&[own, ("metricLabelSelector", series(named))]);
            format!("{CUSTOM_METRICS}/namespaces/{namespace}/pods/*/{}{pairs}", encoded(&named.metric.name))
        }
        "Object" => {
            let named = metric.object.as_ref()?;
            let (object, pairs) = (&named.described_object, query(&[("metricLabelSelector", series(named))]));
            let resource = resource(&object.api_version, &object.kind);
            let name = encoded(&named.metric.name);
            format!("{CUSTOM_METRICS}/namespaces/{namespace}/{resource}/{}/{name}{pairs}", encoded(&object.name))
        }
        "External" => {
            let named = metric.external.as_ref()?;
            let pairs = query(&[("labelSelector", series(named))]);
            format!("{EXTERNAL_METRICS}/namespaces/{namespace}/{}{pairs}", encoded(&named.metric.name))
        }
        _ => return None,
    })
}

/// `plural.group` of a kind, by the rule that all kinds with metrics follow.
fn resource(api_version: &str, kind: &str) -> String {
    let lower = kind.to_lowercase();
    let plural = match lower.as_bytes() {
        [.., b's' | b'x'] => format!("{lower}es"),
        [rest @ .., b'y'] => format!("{}ies", String::from_utf8_lossy(rest)),
        _ => format!("{lower}s"),
    };
    api_version.split_once('/').map_or(plural.clone(), |(group, _)| format!("{plural}.{group}"))
}

fn milli(quantity: Quantity) -> f64 {
    i64::try_from(quantity.milli()).map_or(f64::MAX, |milli| {
        #[expect(clippy::cast_precision_loss, reason = "ratios of amounts need no more")]
        let milli = milli as f64;
        milli
    })
}

fn quantity(value: &Value) -> Option<f64> {
    value.as_str().and_then(|text| text.parse::<Quantity>().ok()).map(milli)
}

fn as_quantity(milli: i64) -> Value {
    json!(Quantity::from_milli(milli.into()))
}

/// What a metric recommends.
pub(super) fn advise(scene: &Scene<'_>, metric: &MetricSpec) -> Result<Advice, Unknown> {
    let missing = || Unknown {
        reason: "InvalidMetricSourceType",
        message: format!("unknown metric source type {:?}", metric.type_),
    };
    match (
        metric.type_.as_str(),
        &metric.resource,
        &metric.container_resource,
        &metric.pods,
        &metric.object,
        &metric.external,
    ) {
        ("Resource", Some(resource), ..) => {
            by_resource(scene, metric, resource, ("resource", "FailedGetResourceMetric"))
        }
        ("ContainerResource", _, Some(resource), ..) => {
            by_resource(scene, metric, resource, ("containerResource", "FailedGetContainerResourceMetric"))
        }
        ("Pods", _, _, Some(named), ..) => by_pods(scene, metric, named),
        ("Object", _, _, _, Some(named), _) => by_object(scene, metric, named),
        ("External", _, _, _, _, Some(named)) => by_external(scene, metric, named),
        _ => Err(missing()),
    }
}

fn answer<'a>(scene: &Scene<'a>, metric: &MetricSpec) -> Result<&'a Value, String> {
    let path = path(&scene.autoscaler.metadata.key(), metric, scene.selector).unwrap_or_default();
    match scene.answers.get(&path) {
        Some(Ok(found)) => Ok(found),
        Some(Err(why)) => Err(why.clone()),
        None => Err("it was not asked for".into()),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn time_of(item: &Value, now: Timestamp) -> Timestamp {
    item["timestamp"].as_str().and_then(|text| text.parse().ok()).unwrap_or(now)
}

/// Use of a resource by pod; a pod with a container that says nothing says nothing.
fn samples(list: &Value, resource: &ResourceMetric, now: Timestamp) -> BTreeMap<String, Sample> {
    let of = |item: &Value| {
        let containers = item["containers"].as_array()?.iter();
        let chosen = containers.filter(|one| resource.container.is_empty() || one["name"] == *resource.container);
        let used: Option<Vec<f64>> = chosen.map(|one| quantity(&one["usage"][&resource.name])).collect();
        let used = used.filter(|used| !used.is_empty())?;
        let window = item["window"].as_str().and_then(|text| text.parse().ok());
        let window = window.unwrap_or(SignedDuration::from_mins(1));
        let sample = Sample { milli: used.iter().sum(), at: time_of(item, now), window };
        Some((item["metadata"]["name"].as_str()?.to_owned(), sample))
    };
    items(list).filter_map(of).collect()
}

/// What each pod requests of a resource.
fn requests(pods: &[&Pod], resource: &ResourceMetric) -> Result<BTreeMap<String, f64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
        let containers = pod.spec.containers.iter().chain(sidecars);
        let mut sum = 0.0;
        for container in containers.filter(|one| resource.container.is_empty() || one.name == resource.container) {
            let request = container.resources.request(&resource.name);
            if request == Quantity::ZERO {
                let (what, which, pod) = (&resource.name, &container.name, &pod.metadata.name);
                return Err(format!("missing request for {what} in container {which} of Pod {pod}"));
            }
            sum += milli(request);
        }
        requests.insert(pod.metadata.name.clone(), sum);
    }
    Ok(requests)
}

fn by_resource(
    scene: &Scene<'_>,
    metric: &MetricSpec,
    resource: &ResourceMetric,
    (field, reason): (&'static str, &'static str),
) -> Result<Advice, Unknown> {
    let what = if resource.container.is_empty() { "resource" } else { "container resource" };
    let name = &resource.name;
    let found = answer(scene, metric)
        .map_err(|why| format!("unable to get metrics for resource {name}: {why}"))
        .and_then(|list| use_of(scene, list, resource));
    let found = found.map_err(|why| Unknown { reason, message: format!("failed to get {name} utilization: {why}") })?;
    let mut current = json!({"averageValue": as_quantity(found.average_milli)});
    let mut words = format!("{name} {what}");
    if let Some(utilization) = found.utilization {
        current["averageUtilization"] = json!(utilization);
        words = format!("{words} utilization (percentage of request)");
    }
    let mut part = json!({"name": name, "current": current});
    if !resource.container.is_empty() {
        part["container"] = json!(resource.container);
    }
    Ok(Advice { replicas: found.replicas, name: words, status: json!({"type": metric.type_, field: part}) })
}

fn use_of(scene: &Scene<'_>, list: &Value, resource: &ResourceMetric) -> Result<Recommendation, String> {
    let samples = samples(list, resource, scene.fleet.now);
    let is_cpu = resource.name == "cpu";
    match (resource.target.average_utilization, resource.target.average_value) {
        (Some(percent), _) => {
            let percent = f64::from(i32::try_from(percent).unwrap_or(i32::MAX));
            let requests = requests(scene.fleet.pods, resource)?;
            by_use(scene.fleet, samples, is_cpu, &Wanted::Percent(percent, &requests))
        }
        (None, Some(value)) => by_use(scene.fleet, samples, is_cpu, &Wanted::Amount(milli(value))),
        (None, None) => Err("neither a utilization target nor a value target was set".into()),
    }
}

fn by_pods(scene: &Scene<'_>, metric: &MetricSpec, named: &NamedMetric) -> Result<Advice, Unknown> {
    let name = &named.metric.name;
    let wanted = named.target.average_value.map_or(0.0, milli);
    let found = answer(scene, metric).map_err(|why| format!("unable to get metric {name}: {why}")).and_then(|list| {
        let of = |item: &Value| {
            let seconds = item["windowSeconds"].as_i64().unwrap_or(60);
            let (at, window) = (time_of(item, scene.fleet.now), SignedDuration::from_secs(seconds));
            let sample = Sample { milli: quantity(&item["value"])?, at, window };
            Some((item["describedObject"]["name"].as_str()?.to_owned(), sample))
        };
        by_use(scene.fleet, items(list).filter_map(of).collect(), false, &Wanted::Amount(wanted))
    });
    let failed =
        |why| Unknown { reason: "FailedGetPodsMetric", message: format!("failed to get pods metric value: {why}") };
    let found = found.map_err(failed)?;
    let current = json!({"averageValue": as_quantity(found.average_milli)});
    let status = json!({"type": "Pods", "pods": {"metric": {"name": name}, "current": current}});
    Ok(Advice { replicas: found.replicas, name: format!("pods metric {name}"), status })
}

fn rounded(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "amounts within 64 bits")]
    let whole = value as i64;
    whole
}

/// The number by one value, in all or for each pod, and the status that goes with it.
fn by_total(scene: &Scene<'_>, total: f64, named: &NamedMetric) -> Result<(i64, Value), String> {
    let current = scene.fleet.current;
    match (named.target.value, named.target.average_value) {
        (Some(value), _) if named.target.type_ != "AverageValue" => {
            Ok((by_value(scene.fleet, total, milli(value)), json!({"value": as_quantity(rounded(total))})))
        }
        (_, Some(value)) => {
            let pods = f64::from(i32::try_from(current.max(1)).unwrap_or(i32::MAX));
            let replicas = by_share(scene.fleet, total, milli(value), scene.replicas);
            Ok((replicas, json!({"averageValue": as_quantity(rounded(total / pods))})))
        }
        _ => Err("neither a value target nor an average value target was set".into()),
    }
}

fn by_object(scene: &Scene<'_>, metric: &MetricSpec, named: &NamedMetric) -> Result<Advice, Unknown> {
    let (name, object) = (&named.metric.name, &named.described_object);
    let found = answer(scene, metric).and_then(|list| {
        let value = items(list).find_map(|item| quantity(&item["value"]));
        by_total(scene, value.ok_or("no value was returned")?, named)
    });
    let reason = "FailedGetObjectMetric";
    let (replicas, current) = found.map_err(|why| {
        let text = format!(
            "unable to get metric {name}: {} on {} {}: {why}",
            object.kind, scene.autoscaler.metadata.namespace, object.name
        );
        Unknown { reason, message: format!("failed to get object metric value: {text}") }
    })?;
    let described = json!({"apiVersion": object.api_version, "kind": object.kind, "name": object.name});
    let part = json!({"metric": {"name": name}, "describedObject": described, "current": current});
    Ok(Advice {
        replicas,
        name: format!("{} metric {name}", object.kind),
        status: json!({"type": "Object", "object": part}),
    })
}

fn by_external(scene: &Scene<'_>, metric: &MetricSpec, named: &NamedMetric) -> Result<Advice, Unknown> {
    let name = &named.metric.name;
    let found = answer(scene, metric).and_then(|list| {
        let values: Vec<f64> = items(list).filter_map(|item| quantity(&item["value"])).collect();
        if values.is_empty() {
            return Err("no metrics returned from external metrics API".into());
        }
        by_total(scene, values.iter().sum(), named)
    });
    let reason = "FailedGetExternalMetric";
    let (replicas, current) = found.map_err(|why| {
        let text = format!("unable to get external metric {}/{name}: {why}", scene.autoscaler.metadata.namespace);
        Unknown { reason, message: format!("failed to get external metric value: {text}") }
    })?;
    let status = json!({"type": "External", "external": {"metric": {"name": name}, "current": current}});
    Ok(Advice { replicas, name: format!("external metric {name}"), status })
}
