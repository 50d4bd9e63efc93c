//! How large a pod's microVM is.
//!
//! Requests decide (a limit alone is the request). Per resource, the need is the larger of the largest init container and
//! the sum of the others; sidecars count with both. The smallest tier that holds the need is what the VM gets
//! and what is billed.

use std::fmt;

use isopod_types::Quantity;
use isopod_types::pod::{Container, PodSpec};

const MIB: i128 = 1 << 20;
const GIB: i128 = 1 << 30;
/// Disk every pod has without asking, in GiB.
pub const FREE_STORAGE_GIB: i64 = 20;
/// The most disk a pod can ask for, in GiB.
pub const MAX_STORAGE_GIB: i64 = 175;

/// What a pod needs before rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Thousandths of a vCPU.
    pub cpu_millis: i128,
    /// Bytes of memory.
    pub memory_bytes: i128,
    /// Bytes of disk.
    pub storage_bytes: i128,
}

/// A size that a Fargate microVM can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier {
    /// Thousandths of a vCPU.
    pub vcpu_millis: i64,
    /// MiB of memory.
    pub memory_mib: i64,
}

/// One row of the table: vCPU thousandths, then memory from, to and step in MiB.
const TIERS: [(i64, i64, i64, i64); 8] = [
    (250, 512, 1024, 512),
    (250, 2048, 2048, 1024),
    (500, 1024, 4096, 1024),
    (1000, 2048, 8192, 1024),
    (2000, 4096, 16384, 1024),
    (4000, 8192, 30720, 1024),
    (8000, 16384, 61440, 4096),
    (16000, 32768, 122_880, 8192),
];

/// All tiers, smallest first.
pub fn tiers() -> impl Iterator<Item = Tier> {
    TIERS.iter().flat_map(|&(vcpu_millis, from, to, step)| {
        let steps = (to - from) / step;
        (0..=steps).map(move |i| Tier { vcpu_millis, memory_mib: from + i * step })
    })
}

impl Tier {
    /// Whole virtual CPUs the VM has; a fraction is enforced by the host's scheduler.
    pub fn vcpu_count(self) -> u32 {
        u32::try_from(self.vcpu_millis.div_euclid(1000) + i64::from(self.vcpu_millis % 1000 != 0)).unwrap_or(1)
    }

    /// Memory in bytes.
    pub fn memory_bytes(self) -> u64 {
        u64::try_from(self.memory_mib).unwrap_or(0) << 20
    }

    /// Reads the annotation text that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        tiers().find(|tier| tier.to_string() == text)
    }
}

impl fmt::Display for Tier {
    /// `0.25vCPU 0.5GB`, the form of the `CapacityProvisioned` annotation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vcpu = self.vcpu_millis as f64 / 1000.0;
        let memory = self.memory_mib as f64 / 1024.0;
        write!(f, "{vcpu}vCPU {memory}GB")
    }
}

fn container_need(container: &Container) -> Need {
    Need {
        cpu_millis: container.resources.request("cpu").milli(),
        memory_bytes: container.resources.request("memory").units_ceil(),
        storage_bytes: container.resources.request("ephemeral-storage").units_ceil(),
    }
}

impl Need {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis + other.cpu_millis,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            storage_bytes: self.storage_bytes + other.storage_bytes,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            storage_bytes: self.storage_bytes.max(other.storage_bytes),
        }
    }

    /// Disk to bill beyond the free 20 GiB, in GiB.
    pub fn extra_storage_gib(self) -> i64 {
        let gib = (self.storage_bytes + GIB - 1).div_euclid(GIB);
        (i64::try_from(gib).unwrap_or(i64::MAX) - FREE_STORAGE_GIB).max(0)
    }
}

/// What the pod's containers need together; `overhead` is added to the memory.
pub fn need(spec: &PodSpec, overhead: Quantity) -> Need {
    let mut sidecars = Need::default();
    let mut initial = Need::default();
    for container in &spec.init_containers {
        if container.is_sidecar() {
            sidecars = sidecars.plus(container_need(container));
            initial = initial.max(sidecars);
        } else {
            initial = initial.max(sidecars.plus(container_need(container)));
        }
    }
    let running = spec.containers.iter().map(container_need).fold(sidecars, Need::plus);
    let mut need = running.max(initial);
    if let Some(cpu) = spec.resources.requests.get("cpu").or(spec.resources.limits.get("cpu")) {
        need.cpu_millis = cpu.milli();
    }
    if let Some(memory) = spec.resources.requests.get("memory").or(spec.resources.limits.get("memory")) {
        need.memory_bytes = memory.units_ceil();
    }
    need.memory_bytes += overhead.units_ceil();
    need
}

/// The smallest tier that holds the need, or nothing when it is larger than the largest.
pub fn tier(need: Need) -> Option<Tier> {
    tiers().find(|tier| {
        i128::from(tier.vcpu_millis) >= need.cpu_millis && i128::from(tier.memory_mib) * MIB >= need.memory_bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Containers as `cpu/memory`, `-` for none; init containers before `;`.
    fn spec(text: &str) -> PodSpec {
        let (init, main) = text.split_once(';').unwrap_or(("", text));
        let container = |text: &str, sidecar: bool| {
            let (cpu, memory) = text.split_once('/').unwrap();
            let mut requests = serde_json::Map::new();
            for (name, value) in [("cpu", cpu), ("memory", memory)].iter().filter(|(_, v)| *v != "-") {
                requests.insert((*name).into(), json!(value));
            }
            json!({"name": "c", "resources": {"requests": requests}, "restartPolicy": sidecar.then_some("Always")})
        };
        let list = |text: &str| -> Vec<serde_json::Value> {
            text.split_whitespace().map(|c| container(c.trim_start_matches('+'), c.starts_with('+'))).collect()
        };
        serde_json::from_value(json!({"initContainers": list(init), "containers": list(main)})).unwrap()
    }

    fn check(pod: &str, overhead: &str, expected: &str) {
        let found = tier(need(&spec(pod), overhead.parse().unwrap()));
        assert_eq!(found.map_or("none".into(), |t| t.to_string()), expected, "{pod} + {overhead}");
    }

    #[test]
    fn pods_are_rounded_up_to_the_table() {
        for (pod, expected) in [
            ("-/-", "0.25vCPU 0.5GB"),
            ("250m/512Mi", "0.25vCPU 0.5GB"),
            ("250m/513Mi", "0.25vCPU 1GB"),
            ("250m/1025Mi", "0.25vCPU 2GB"),
            ("500m/1Gi", "0.5vCPU 1GB"),
            ("251m/100Mi", "0.5vCPU 1GB"),
            // The seeds' sidecar example: 0.6 vCPU and 1.128 GB is billed as 1 vCPU, 2 GB.
            ("500m/1Gi 100m/128Mi", "1vCPU 2GB"),
            ("1/2Gi", "1vCPU 2GB"),
            ("1/9Gi", "2vCPU 9GB"),
            ("4/30Gi", "4vCPU 30GB"),
            ("4/31Gi", "8vCPU 32GB"),
            ("8/60Gi", "8vCPU 60GB"),
            ("16/120Gi", "16vCPU 120GB"),
            ("16/121Gi", "none"),
            ("17/1Gi", "none"),
        ] {
            check(pod, "0", expected);
        }
    }

    #[test]
    fn init_containers_count_by_their_maximum_and_sidecars_with_both() {
        check("1/1Gi 2/1Gi;250m/512Mi", "0", "2vCPU 4GB");
        check("1/1Gi;2/4Gi", "0", "2vCPU 4GB");
        check("+500m/512Mi 500m/1Gi;250m/512Mi", "0", "1vCPU 2GB");
    }

    #[test]
    fn amazons_overhead_is_a_switch() {
        check("250m/512Mi", "256Mi", "0.25vCPU 1GB");
        check("1/8Gi", "256Mi", "2vCPU 9GB");
        check("16/120Gi", "256Mi", "none");
    }

    #[test]
    fn every_tier_can_be_read_back() {
        assert_eq!(tiers().count(), 3 + 4 + 7 + 13 + 23 + 12 + 12);
        for tier in tiers() {
            assert_eq!(Tier::parse(&tier.to_string()), Some(tier));
        }
        assert!(tiers().collect::<Vec<_>>().is_sorted());
        assert_eq!(Tier { vcpu_millis: 250, memory_mib: 512 }.vcpu_count(), 1);
    }
}
