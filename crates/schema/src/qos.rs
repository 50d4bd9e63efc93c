//! Quality of service of a pod, from what its containers ask for. It knows nothing of nodes.

use std::collections::BTreeMap;

use isopod_types::Quantity;
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`, from CPU and memory of all containers.
pub fn class(spec: &Value) -> &'static str {
    let lists = ["containers", "initContainers"].map(|list| spec[list].as_array());
    let containers: Vec<&Value> = lists.into_iter().flatten().flatten().collect();
    let resources: Vec<_> = containers.iter().map(|c| (amounts(c, "requests"), amounts(c, "limits"))).collect();
    if resources.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = resources.iter().all(|(requests, limits)| {
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

fn amounts<'a>(container: &'a Value, which: &str) -> BTreeMap<&'a str, Quantity> {
    let list = container["resources"][which].as_object().into_iter().flatten();
    list.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .filter_map(|(name, amount)| Some((name.as_str(), amount.as_str()?.parse().ok()?)))
        .filter(|(_, amount)| *amount != Quantity::ZERO)
        .collect()
}
