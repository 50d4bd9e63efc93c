//! ResourceQuota: what objects use, whether there is room for one more, and what is used in all.
//!
//! Names of resources, scopes and texts are upstream's. The same functions decide at admission and count again later, so
//! that the two cannot disagree.

mod scopes;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::admission::{Denied, Operation, Request};
use crate::amounts::{Amount, Amounts, amounts};

pub use usage::usage;

/// Resources that every container has to ask for when a quota limits them.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// The kind of object that a request counts for, as in `deployments.apps`; none when quotas do not look at it.
pub fn counted(request: &Request<'_>) -> Option<String> {
    let updatable = request.group.is_empty()
        && ["persistentvolumeclaims", "pods", "services"].contains(&request.resource)
        && matches!((request.resource, request.subresource), (_, "") | ("pods", "resize"));
    let counts = match request.operation {
        Operation::Create => request.subresource.is_empty(),
        Operation::Update => updatable,
        Operation::Delete | Operation::Connect => false,
    };
    let group = if request.group.is_empty() { String::new() } else { format!(".{}", request.group) };
    (counts && !request.namespace.is_empty()).then(|| format!("{}{group}", request.resource))
}

/// Kinds of objects that a quota counts, as in `deployments.apps`.
pub fn resources(quota: &Value) -> BTreeSet<String> {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    hard.map(|(name, _)| usage::counted_by(name)).map(str::to_owned).collect()
}

/// The status says how much of what the specification allows is used.
pub fn is_current(quota: &Value) -> bool {
    let (hard, used) = (&quota["spec"]["hard"], amounts(&quota["status"]["used"]));
    let names = || hard.as_object().into_iter().flatten().map(|(name, _)| name);
    quota["status"]["hard"] == *hard && names().all(|name| used.contains_key(name))
}

fn name_of(quota: &Value) -> &str {
    quota["metadata"]["name"].as_str().unwrap_or_default()
}

/// Amounts for what the quota limits.
fn masked(quota: &Value, amounts: Amounts) -> Amounts {
    let hard = &quota["spec"]["hard"];
    amounts.into_iter().filter(|(name, _)| hard.get(name).is_some()).collect()
}

fn used_by(quota: &Value, resource: &str, object: &Value) -> Amounts {
    if scopes::covers(quota, resource, object) { masked(quota, usage(resource, object)) } else { Amounts::new() }
}

/// What the quota has to give for an object (`old` is what it was before); empty when it is not concerned.
///
/// # Errors
/// A container that does not say what the quota has to know.
pub fn wanted(quota: &Value, resource: &str, object: &Value, old: Option<&Value>) -> Result<Amounts, Denied> {
    if resource == "pods" && scopes::covers(quota, resource, object) {
        let missing = missing(quota, &object["spec"]);
        if !missing.is_empty() {
            return Err(Denied::Forbidden(format!("failed quota: {}: must specify {missing}", name_of(quota))));
        }
    }
    let mut delta = used_by(quota, resource, object);
    for (name, amount) in old.map(|old| used_by(quota, resource, old)).unwrap_or_default() {
        let left = delta.get(&name).copied().unwrap_or_default().minus(amount);
        delta.insert(name, left);
    }
    delta.retain(|_, amount| amount.value != Amount::ZERO.value);
    Ok(delta)
}

/// `cpu for: a,b; memory for: a`.
fn missing(quota: &Value, spec: &Value) -> String {
    let whole = usage::of_resources(&spec["resources"]);
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array());
    for container in containers.flatten() {
        let own = usage::of_resources(&container["resources"]);
        let demanded = DEMANDED.into_iter().filter(|name| quota["spec"]["hard"].get(name).is_some());
        for name in demanded.filter(|name| !own.contains_key(*name) && !whole.contains_key(*name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let parts = missing.into_iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.into_iter().collect();
        format!("{name} for: {}", containers.join(","))
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// The quota after it has given this.
///
/// # Errors
/// It has not that much left.
pub fn charged(quota: &Value, wanted: &Amounts) -> Result<Value, Denied> {
    let (hard, used) = (amounts(&quota["spec"]["hard"]), amounts(&quota["status"]["used"]));
    let sum = |name: &String, more: Amount| used.get(name).copied().unwrap_or_default().plus(more);
    let is_exceeded = |(name, more): &(&String, &Amount)| {
        more.value > Amount::ZERO.value && hard.get(*name).is_some_and(|limit| sum(name, **more).value > limit.value)
    };
    let exceeded: BTreeSet<&String> = wanted.iter().filter(is_exceeded).map(|(name, _)| name).collect();
    if !exceeded.is_empty() {
        let shown = |amounts: &Amounts| {
            let amount = |name: &&String| amounts.get(*name).copied().unwrap_or_default();
            exceeded.iter().map(|name| format!("{name}={}", amount(name))).collect::<Vec<_>>().join(",")
        };
        let (requested, used, limited) = (shown(wanted), shown(&used), shown(&hard));
        let name = name_of(quota);
        return Err(Denied::Forbidden(format!(
            "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
        )));
    }
    let mut quota = quota.clone();
    for (name, more) in wanted {
        quota["status"]["used"][name] = json!(sum(name, *more).to_string());
    }
    Ok(quota)
}

/// The quota with a status that is counted from the objects there are, by kind.
pub fn counted_again<'o>(quota: &Value, objects: impl IntoIterator<Item = (&'o str, &'o Value)>) -> Value {
    let hard = &quota["spec"]["hard"];
    let names = hard.as_object().into_iter().flatten();
    let mut used: Amounts = names.map(|(name, _)| (name.clone(), Amount::ZERO)).collect();
    for (resource, object) in objects {
        crate::amounts::add(&mut used, &used_by(quota, resource, object));
    }
    let used: serde_json::Map<String, Value> =
        used.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))).collect();
    let mut quota = quota.clone();
    quota["status"] = json!({"hard": hard, "used": used});
    quota
}
