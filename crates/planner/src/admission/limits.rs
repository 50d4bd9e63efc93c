//! LimitRange: what containers get that say nothing, and how much containers, pods and claims may ask for.
//!
//! Texts and rules are those of upstream's LimitRanger.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Denied, Facts, Operation, Request, forbidden, items, object, text};
use crate::amounts::{Amount, Amounts, amounts, of_pod};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn concerns(request: &Request<'_>) -> bool {
    let resizes = request.operation == Operation::Update
        && (request.group, request.resource, request.subresource) == ("", "pods", "resize");
    request.creates("", "pods")
        || resizes
        || request.is("", "persistentvolumeclaims")
            && matches!(request.operation, Operation::Create | Operation::Update)
}

fn ranges(request: &Request<'_>, facts: &dyn Facts) -> Vec<Arc<Value>> {
    if concerns(request) { facts.list("limitranges", request.namespace) } else { Vec::new() }
}

/// All limits of a type.
fn of_type<'a>(ranges: &'a [Arc<Value>], ty: &'a str) -> impl Iterator<Item = &'a Value> {
    ranges.iter().flat_map(|range| items(&range["spec"], "limits")).filter(move |item| item["type"] == ty)
}

/// Gives containers the requests and limits that they leave open.
pub(super) fn fill_in(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    if !request.creates("", "pods") {
        return Ok(false);
    }
    let ranges = ranges(request, facts);
    let mut notes: Vec<String> = Vec::new();
    for range in &ranges {
        let defaults = |field: &str| {
            let limits = of_type(std::slice::from_ref(range), "Container").flat_map(|item| item[field].as_object());
            limits.flatten().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        let wanted = [("requests", "request", defaults("defaultRequest")), ("limits", "limit", defaults("default"))];
        for (list, label) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for (field, word, defaults) in &wanted {
                    let set = fill_container(container, field, defaults);
                    if !set.is_empty() {
                        let set: Vec<&str> = set.into_iter().collect();
                        notes.push(format!("{} {word} for {label} {}", set.join(", "), text(container, "name")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        object(object(pod, "metadata"), "annotations")[ANNOTATION] = json!(note);
    }
    Ok(!notes.is_empty())
}

/// Names of what was set.
fn fill_container<'d>(container: &mut Value, field: &str, defaults: &'d [(String, Value)]) -> BTreeSet<&'d str> {
    let mut set = BTreeSet::new();
    for (name, value) in defaults {
        if container["resources"][field].get(name).is_none() {
            object(object(container, "resources"), field)[name] = value.clone();
            set.insert(name.as_str());
        }
    }
    set
}

/// Checks what is asked for against all limits of the namespace.
pub(super) fn check(asked: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    let ranges = ranges(request, facts);
    if ranges.is_empty() || !asked["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Vec::new());
    }
    let mut errors: Vec<String> = Vec::new();
    if request.resource == "pods" {
        check_pod(&ranges, &asked["spec"], &mut errors);
    } else {
        check_claim(&ranges, &asked["spec"], &mut errors);
    }
    match errors.as_slice() {
        [] => Ok(Vec::new()),
        [error] => forbidden(error.clone()),
        _ => forbidden(format!("[{}]", errors.join(", "))),
    }
}

fn push(errors: &mut Vec<String>, error: Option<String>) {
    errors.extend(error.filter(|error| !errors.contains(error)).into_iter().collect::<Vec<_>>());
}

fn check_pod(ranges: &[Arc<Value>], spec: &Value, errors: &mut Vec<String>) {
    for item in of_type(ranges, "Container") {
        for container in items(spec, "containers").iter().chain(items(spec, "initContainers")) {
            let resources = &container["resources"];
            Asked { ty: "Container", requests: amounts(&resources["requests"]), limits: amounts(&resources["limits"]) }
                .check(item, errors);
        }
    }
    for item in of_type(ranges, "Pod") {
        Asked { ty: "Pod", requests: of_pod(spec, "requests"), limits: of_pod(spec, "limits") }.check(item, errors);
    }
}

fn check_claim(ranges: &[Arc<Value>], spec: &Value, errors: &mut Vec<String>) {
    const TYPE: &str = "PersistentVolumeClaim";
    let asked = Asked { ty: TYPE, requests: amounts(&spec["resources"]["requests"]), limits: Amounts::new() };
    for item in of_type(ranges, TYPE) {
        for (name, bound) in amounts(&item["min"]) {
            push(errors, asked.minimum(&name, bound));
        }
        for (name, bound) in amounts(&item["max"]) {
            let found = asked.requests.get(&name);
            let lead = format!("maximum {name} usage per {TYPE} is {bound}");
            push(
                errors,
                match found {
                    None => Some(format!("{lead}.  No request is specified")),
                    Some(found) if found.value > bound.value => Some(format!("{lead}, but request is {found}")),
                    Some(_) => None,
                },
            );
        }
    }
}

/// What something of a type asks for.
struct Asked {
    ty: &'static str,
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn check(&self, item: &Value, errors: &mut Vec<String>) {
        for (name, bound) in amounts(&item["min"]) {
            push(errors, self.minimum(&name, bound));
        }
        for (name, bound) in amounts(&item["max"]) {
            push(errors, self.maximum(&name, bound));
        }
        for (name, bound) in amounts(&item["maxLimitRequestRatio"]) {
            push(errors, self.ratio(&name, bound));
        }
    }

    fn minimum(&self, name: &str, bound: Amount) -> Option<String> {
        let lead = format!("minimum {name} usage per {} is {bound}", self.ty);
        let is_below = |found: &&Amount| found.value < bound.value;
        let Some(request) = self.requests.get(name) else { return Some(format!("{lead}.  No request is specified")) };
        if is_below(&request) {
            return Some(format!("{lead}, but request is {request}"));
        }
        self.limits.get(name).filter(is_below).map(|limit| format!("{lead}, but limit is {limit}"))
    }

    fn maximum(&self, name: &str, bound: Amount) -> Option<String> {
        let lead = format!("maximum {name} usage per {} is {bound}", self.ty);
        let is_above = |found: &&Amount| found.value > bound.value;
        let Some(limit) = self.limits.get(name) else { return Some(format!("{lead}.  No limit is specified")) };
        if is_above(&limit) {
            return Some(format!("{lead}, but limit is {limit}"));
        }
        self.requests.get(name).filter(is_above).map(|request| format!("{lead}, but request is {request}"))
    }

    fn ratio(&self, name: &str, bound: Amount) -> Option<String> {
        let lead = format!("{name} max limit to request ratio per {} is {bound}", self.ty);
        let present = |found: Option<&Amount>| found.map(|found| found.value.milli()).filter(|milli| *milli != 0);
        let Some(request) = present(self.requests.get(name)) else {
            return Some(format!("{lead}, but no request is specified or request is 0"));
        };
        let Some(limit) = present(self.limits.get(name)) else {
            return Some(format!("{lead}, but no limit is specified or limit is 0"));
        };
        let ratio = limit as f64 / request as f64;
        (ratio > bound.value.milli() as f64 / 1000.0).then(|| format!("{lead}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cluster, request};
    use super::*;

    fn range(limits: Value) -> Cluster {
        let range = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": [limits]}});
        Cluster::default().with("limitranges", range)
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn what_is_left_open_is_filled_in() {
        let facts = range(
            json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}}),
        );
        let mut asked = pod(json!({"limits": {"memory": "2Gi"}}));
        assert_eq!(fill_in(&mut asked, &request("CREATE pods n/p"), &facts), Ok(true));
        let filled = &asked["spec"]["containers"][0]["resources"];
        assert_eq!(*filled, json!({"limits": {"memory": "2Gi", "cpu": "2"}, "requests": {"cpu": "1"}}));
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(asked["metadata"]["annotations"][ANNOTATION], note);
        for line in ["UPDATE pods n/p", "CREATE pods other/p", "CREATE pods/binding n/p"] {
            assert_eq!(fill_in(&mut pod(json!({})), &request(line), &facts), Ok(false), "{line}");
        }
    }

    #[test]
    fn bounds_of_containers_and_pods() {
        fn check_one(limits: Value, resources: Value, expected: &str) {
            let found = check(&pod(resources.clone()), &request("CREATE pods n/p"), &range(limits));
            assert_eq!(found.err().map(|error| error.to_string()).unwrap_or_default(), expected, "{resources}");
        }
        let full = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let max = json!({"type": "Container", "max": {"cpu": "1"}});
        check_one(max.clone(), full("1"), "");
        check_one(max.clone(), full("2"), "maximum cpu usage per Container is 1, but limit is 2");
        check_one(max, json!({}), "maximum cpu usage per Container is 1.  No limit is specified");
        let min = json!({"type": "Pod", "min": {"cpu": "200m", "memory": "6Mi"}});
        let two = "[minimum cpu usage per Pod is 200m, but request is 100m, minimum memory usage per Pod is 6Mi.  No request is specified]";
        check_one(min, full("100m"), two);
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        let wide = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "250m"}});
        check_one(
            ratio.clone(),
            wide,
            "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
        );
        check_one(
            ratio,
            json!({}),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        );
    }

    #[test]
    fn bounds_of_claims() {
        let facts =
            range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        for (size, expected) in [
            ("1Gi", ""),
            ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
            ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            let found = check(&claim, &request("CREATE persistentvolumeclaims n/c"), &facts);
            assert_eq!(found.err().map(|error| error.to_string()).unwrap_or_default(), expected, "{size}");
        }
    }
}
