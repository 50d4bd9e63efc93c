//! What pods ask for and nodes have, as whole numbers, and whether the one fits the other. Knows no pod by name.

use std::collections::BTreeMap;

use isopod_types::Quantity;
use isopod_types::pod::{Container, Pod, PodCondition, PodSpec, ResourceList, Resources as ContainerResources};

/// What a container counts with for scoring when it asks for no CPU: thousandths.
const SCORED_CPU_MILLI: i64 = 100;
/// The same of memory: bytes.
const SCORED_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of local disk.
    pub storage_bytes: i64,
    /// Pieces (or bytes) of everything else, by name.
    pub other: BTreeMap<String, i64>,
}

fn whole(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

impl Resources {
    /// From a list of quantities. `pods` is not an amount that pods ask for and is left out.
    pub fn of(list: &ResourceList) -> Self {
        let mut found = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => found.cpu_milli = whole(quantity.milli()),
                "memory" => found.memory_bytes = whole(quantity.units_ceil()),
                "ephemeral-storage" => found.storage_bytes = whole(quantity.units_ceil()),
                "pods" => {}
                _ => {
                    found.other.insert(name.clone(), whole(quantity.units_ceil()));
                }
            }
        }
        found
    }

    /// Adds, or takes away when `sign` is -1.
    pub fn add(&mut self, more: &Self, sign: i64) {
        self.cpu_milli = self.cpu_milli.saturating_add(sign * more.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(sign * more.memory_bytes);
        self.storage_bytes = self.storage_bytes.saturating_add(sign * more.storage_bytes);
        for (name, amount) in &more.other {
            let sum = self.other.entry(name.clone()).or_default();
            *sum = sum.saturating_add(sign * amount);
        }
    }

    /// Names of what is missing when `wanted` is added to `used` of these; what is not asked for is not looked at.
    pub fn missing<'a>(&self, used: &Self, wanted: &'a Self) -> Vec<&'a str> {
        let lacks = |wanted: i64, used: i64, all: i64| wanted > 0 && wanted > all.saturating_sub(used);
        let mut missing = Vec::new();
        for (name, wanted, used, all) in [
            ("cpu", wanted.cpu_milli, used.cpu_milli, self.cpu_milli),
            ("memory", wanted.memory_bytes, used.memory_bytes, self.memory_bytes),
            ("ephemeral-storage", wanted.storage_bytes, used.storage_bytes, self.storage_bytes),
        ] {
            if lacks(wanted, used, all) {
                missing.push(name);
            }
        }
        let of = |map: &BTreeMap<String, i64>, name: &str| map.get(name).copied().unwrap_or(0);
        let other =
            wanted.other.iter().filter(|(name, wanted)| lacks(**wanted, of(&used.other, name), of(&self.other, name)));
        missing.extend(other.map(|(name, _)| name.as_str()));
        missing
    }
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.plus(*quantity);
    }
}

fn raise(total: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        let current = total.entry(name.clone()).or_default();
        *current = (*current).max(*quantity);
    }
}

/// What a container asks for; a limit alone is the request.
fn of_container(container: &Container) -> ResourceList {
    let mut list = container.resources.limits.clone();
    list.extend(container.resources.requests.iter().map(|(name, quantity)| (name.clone(), *quantity)));
    list
}

/// The same with a floor under CPU and memory, so that pods that ask for nothing do not pile up on one node.
fn scored_container(container: &Container) -> ResourceList {
    let mut list = of_container(container);
    list.retain(|name, _| name == "cpu" || name == "memory");
    list.entry("cpu".into()).or_insert(Quantity::from_milli(i128::from(SCORED_CPU_MILLI)));
    list.entry("memory".into()).or_insert(Quantity::from_units(i128::from(SCORED_MEMORY_BYTES)));
    list
}

/// The larger of the sum of all that stay and the peak while starting; sidecars count with both.
fn together(spec: &PodSpec, of: fn(&Container) -> ResourceList) -> ResourceList {
    let (mut total, mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new(), ResourceList::new());
    spec.containers.iter().for_each(|container| add(&mut total, &of(container)));
    for container in &spec.init_containers {
        let mut while_it_runs = sidecars.clone();
        add(&mut while_it_runs, &of(container));
        raise(&mut peak, &while_it_runs);
        if container.is_sidecar() {
            sidecars = while_it_runs;
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    total
}

/// What a pod asks for as a whole; what is said of the whole pod counts instead of its containers.
pub fn requested(spec: &PodSpec) -> Resources {
    let mut list = together(spec, of_container);
    let whole = spec.resources.limits.iter().chain(&spec.resources.requests);
    list.extend(whole.map(|(name, quantity)| (name.clone(), *quantity)));
    add(&mut list, &spec.overhead);
    Resources::of(&list)
}

/// What a pod counts with on its node: of each container the most of what is wanted, set aside and given, because what is being
/// resized may still have either. What will never be set aside does not count.
pub fn counted(pod: &Pod) -> PodSpec {
    let mut spec = pod.spec.clone();
    let is_hopeless = |condition: &PodCondition| {
        (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str())
            == ("PodResizePending", "True", "Infeasible")
    };
    let hopeless = pod.status.conditions.iter().any(is_hopeless);
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    for status in statuses {
        let Some(given) = &status.resources else { continue };
        let mut containers = spec.init_containers.iter_mut().chain(&mut spec.containers);
        let Some(container) = containers.find(|container| container.name == status.name) else { continue };
        let mut real = given.requests.clone();
        raise(&mut real, &status.allocated_resources);
        if hopeless {
            container.resources = ContainerResources { requests: real, limits: given.limits.clone() };
        } else {
            raise(&mut container.resources.requests, &real);
        }
    }
    spec
}

/// CPU thousandths and memory bytes a pod counts with when nodes are compared.
pub fn scored(spec: &PodSpec) -> (i64, i64) {
    let mut list = together(spec, scored_container);
    list.extend(spec.resources.requests.iter().map(|(name, quantity)| (name.clone(), *quantity)));
    add(&mut list, &spec.overhead);
    let found = Resources::of(&list);
    (found.cpu_milli, found.memory_bytes)
}

/// How empty a node would be, 0 to 100: the mean of what would be left of CPU and memory.
pub fn least_allocated(all: &Resources, cpu_milli: i64, memory_bytes: i64) -> i64 {
    let left = |used: i64, all: i64| {
        if all <= 0 || used > all { 0 } else { whole(i128::from(all - used) * 100 / i128::from(all)) }
    };
    let parts = [(cpu_milli, all.cpu_milli), (memory_bytes, all.memory_bytes)];
    let counted = parts.iter().filter(|(_, all)| *all > 0);
    let count = counted.clone().count();
    let sum: i64 = counted.map(|(used, all)| left(*used, *all)).sum();
    if count == 0 { 0 } else { sum / whole(count as i128) }
}

/// How evenly CPU and memory of a node would be used, 0 to 100.
pub fn balanced(all: &Resources, cpu_milli: i64, memory_bytes: i64) -> i64 {
    let share = |used: i64, all: i64| if all <= 0 { 0.0 } else { (used as f64 / all as f64).min(1.0) };
    let difference = (share(cpu_milli, all.cpu_milli) - share(memory_bytes, all.memory_bytes)).abs();
    ((1.0 - difference / 2.0) * 100.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_as_a_whole() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        for (value, cpu_milli, scored_milli) in [
            (json!({"containers": [c("1"), c("500m")]}), 1500, 1500),
            (json!({"containers": [c("1")], "initContainers": [c("3"), c("2")]}), 3000, 3000),
            (json!({"containers": [c("1")], "initContainers": [sidecar, c("2")]}), 2100, 2100),
            (json!({"containers": [c("1")], "initContainers": [sidecar]}), 1100, 1100),
            (json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}), 1250, 1250),
            (json!({"containers": [c("1")], "resources": {"requests": {"cpu": "4"}}}), 4000, 4000),
            (json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}), 2000, 2000),
            (json!({"containers": [{}, {}]}), 0, 200),
        ] {
            let found = spec(value.clone());
            assert_eq!((requested(&found).cpu_milli, scored(&found).0), (cpu_milli, scored_milli), "{value}");
        }
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most_it_may_have() {
        let check = |wanted: &str, allotted: &str, given: &str, reason: &str, expected: i64| {
            let requests = |cpu: &str| json!({"cpu": cpu});
            let status = json!({
                "name": "c", "allocatedResources": requests(allotted), "resources": {"requests": requests(given)},
            });
            let pending = json!({"type": "PodResizePending", "status": "True", "reason": reason});
            let pod = json!({
                "spec": {"containers": [{"name": "c", "resources": {"requests": requests(wanted)}}]},
                "status": {"containerStatuses": [status], "conditions": [pending]},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(requested(&counted(&pod)).cpu_milli, expected, "{wanted} {allotted} {given} {reason}");
        };
        check("2", "1", "1", "Deferred", 2000);
        check("2", "1", "1", "Infeasible", 1000);
        check("1", "1", "3", "", 3000);
        check("1", "2", "1", "", 2000);
    }

    #[test]
    fn what_is_missing_is_named() {
        let list = |value: Value| Resources::of(&serde_json::from_value(value).unwrap());
        let all = list(json!({"cpu": "2", "memory": "1Gi", "example.com/gpu": "2", "pods": "3"}));
        let used = list(json!({"cpu": "1500m", "example.com/gpu": "1"}));
        for (wanted, expected) in [
            (json!({"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}), vec![]),
            (json!({"cpu": "501m"}), vec!["cpu"]),
            (json!({"cpu": "0", "memory": "0"}), vec![]),
            (json!({"memory": "2Gi", "ephemeral-storage": "1"}), vec!["memory", "ephemeral-storage"]),
            (json!({"example.com/gpu": "2", "example.com/fpga": "1"}), vec!["example.com/fpga", "example.com/gpu"]),
        ] {
            assert_eq!(all.missing(&used, &list(wanted.clone())), expected, "{wanted}");
        }
    }

    #[test]
    fn empty_and_even_nodes_are_preferred() {
        let all = Resources { cpu_milli: 1000, memory_bytes: 1000, ..Resources::default() };
        for (cpu, memory, empty, even) in
            [(0, 0, 100, 100), (500, 500, 50, 100), (1000, 0, 50, 50), (1000, 1000, 0, 100), (2000, 0, 50, 50)]
        {
            assert_eq!(
                (least_allocated(&all, cpu, memory), balanced(&all, cpu, memory)),
                (empty, even),
                "{cpu} {memory}"
            );
        }
        assert_eq!(least_allocated(&Resources::default(), 1, 1), 0);
    }
}
