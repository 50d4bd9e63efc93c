//! Instance types: sizes of worker nodes under the names that EC2 gives them.
//!
//! Source: EC2's published tables of vCPUs, memory and network interfaces; the number of pods is what the VPC CNI plugin
//! derives from the interfaces (interfaces × (addresses − 1) + 2).

use crate::Quantity;
use crate::pod::ResourceList;

/// One size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// `t3.medium`.
    pub name: &'static str,
    /// Virtual processors.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Most pods.
    pub pods_max: u32,
}

/// Name, vCPUs, memory in MiB, pods.
type Row = (&'static str, u32, u64, u32);

#[rustfmt::skip]
const TABLE: [Row; 39] = [
    ("t2.micro", 1, 1024, 4), ("t2.small", 1, 2048, 11), ("t2.medium", 2, 4096, 17), ("t2.large", 2, 8192, 35),
    ("t2.xlarge", 4, 16_384, 44), ("t2.2xlarge", 8, 32_768, 44),
    ("t3.micro", 2, 1024, 4), ("t3.small", 2, 2048, 11), ("t3.medium", 2, 4096, 17), ("t3.large", 2, 8192, 35),
    ("t3.xlarge", 4, 16_384, 58), ("t3.2xlarge", 8, 32_768, 58),
    ("t3a.micro", 2, 1024, 4), ("t3a.small", 2, 2048, 8), ("t3a.medium", 2, 4096, 17), ("t3a.large", 2, 8192, 35),
    ("t3a.xlarge", 4, 16_384, 58), ("t3a.2xlarge", 8, 32_768, 58),
    ("m5.large", 2, 8192, 29), ("m5.xlarge", 4, 16_384, 58), ("m5.2xlarge", 8, 32_768, 58),
    ("m5.4xlarge", 16, 65_536, 234), ("m6i.large", 2, 8192, 29), ("m6i.xlarge", 4, 16_384, 58),
    ("m6i.2xlarge", 8, 32_768, 58), ("m6i.4xlarge", 16, 65_536, 234),
    ("c5.large", 2, 4096, 29), ("c5.xlarge", 4, 8192, 58), ("c5.2xlarge", 8, 16_384, 58),
    ("c5.4xlarge", 16, 32_768, 234), ("c6i.large", 2, 4096, 29), ("c6i.xlarge", 4, 8192, 58),
    ("c6i.2xlarge", 8, 16_384, 58),
    ("r5.large", 2, 16_384, 29), ("r5.xlarge", 4, 32_768, 58), ("r5.2xlarge", 8, 65_536, 58),
    ("r6i.large", 2, 16_384, 29), ("r6i.xlarge", 4, 32_768, 58), ("r6i.2xlarge", 8, 65_536, 58),
];

/// The upper bound that Kubernetes recommends for a node.
const PODS_RECOMMENDED: u32 = 110;

/// The size of this name.
pub fn find(name: &str) -> Option<InstanceType> {
    let row = TABLE.iter().find(|row| row.0 == name)?;
    Some(InstanceType { name: row.0, vcpu_count: row.1, memory_mib: row.2, pods_max: row.3.min(PODS_RECOMMENDED) })
}

/// All names.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|row| row.0).collect()
}

impl InstanceType {
    /// Bytes of memory.
    pub fn memory_bytes(self) -> u64 {
        self.memory_mib << 20
    }

    /// Memory kept for the system, in bytes: 255 MiB, 11 MiB a pod, and 100 MiB before it runs out (EKS's kube-reserved and
    /// eviction threshold). Of nodes too small for that, a quarter.
    pub fn reserved_memory_bytes(self) -> u64 {
        ((255 + 11 * u64::from(self.pods_max) + 100) << 20).min(self.memory_bytes() / 4)
    }

    /// What pods may have of a node of this size with a disk of so many GiB.
    pub fn allocatable(self, disk_gib: u64) -> ResourceList {
        let cpu = i128::from(self.vcpu_count) * 1000 - i128::from(self.reserved_cpu_millis());
        let memory = self.memory_bytes() - self.reserved_memory_bytes();
        ResourceList::from([
            ("cpu".to_owned(), Quantity::from_milli(cpu)),
            ("memory".to_owned(), Quantity::from_units(i128::from(memory))),
            ("ephemeral-storage".to_owned(), Quantity::from_units(i128::from(disk_gib) << 30)),
            ("pods".to_owned(), Quantity::from_units(i128::from(self.pods_max))),
        ])
    }

    /// Processor time kept for the system, in thousandths: 6 % of the first core, 1 % of the second, 0.5 % of the next two,
    /// 0.25 % of all others (EKS's kube-reserved).
    pub fn reserved_cpu_millis(self) -> u32 {
        let tenths: u32 =
            (0..self.vcpu_count).map(|core| [600, 100, 50, 50].get(core as usize).copied().unwrap_or(25)).sum();
        tenths / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_ec2s_and_reservations_are_ekss() {
        for (name, vcpu, memory_mib, pods, cpu, reserved_mib) in [
            ("t3.medium", 2, 4096, 17, 70, 542),
            ("m5.large", 2, 8192, 29, 70, 674),
            ("m5.4xlarge", 16, 65_536, 110, 110, 1565),
            ("t3.micro", 2, 1024, 4, 70, 256),
        ] {
            let found = find(name).unwrap();
            assert_eq!((found.vcpu_count, found.memory_mib, found.pods_max), (vcpu, memory_mib, pods), "{name}");
            assert_eq!(
                (found.reserved_cpu_millis(), found.reserved_memory_bytes() >> 20),
                (cpu, reserved_mib),
                "{name}"
            );
        }
        assert_eq!(find("t9.huge"), None);
        let names = names();
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
    }
}
