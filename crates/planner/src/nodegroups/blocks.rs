//! Blocks of addresses for worker nodes: the first for the node itself, the others for its pods. They lie in the cluster's
//! network, outside the subnets that Fargate pods get theirs from.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use isopod_types::own::ClusterSpec;

/// Addresses of a block that no pod gets: the network's, the node's, and the last.
const RESERVED: u32 = 3;

/// The node's own address.
pub(super) fn node_address(block: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block.network()).saturating_add(1))
}

/// The smallest block that holds so many pods and overlaps none of these: behind all subnets, or else anywhere.
pub(super) fn free(cluster: &ClusterSpec, used: &[Ipv4Net], pods_max: u32) -> Option<Ipv4Net> {
    let all = cluster.vpc.cidr?;
    let host_bits = (pods_max + RESERVED).next_power_of_two().trailing_zeros();
    let length = 32 - u8::try_from(host_bits).ok()?;
    let subnets: Vec<Ipv4Net> = cluster.vpc.subnets.iter().map(|subnet| subnet.cidr).collect();
    let end = subnets.iter().map(|subnet| u32::from(subnet.broadcast())).max().unwrap_or(0);
    let overlaps =
        |block: &Ipv4Net, other: &Ipv4Net| block.contains(&other.network()) || other.contains(&block.network());
    let is_free = |block: &Ipv4Net| !subnets.iter().chain(used).any(|other| overlaps(block, other));
    let mut candidates = all.subnets(length).ok()?.filter(is_free);
    let first = candidates.next()?;
    let behind = std::iter::once(first).chain(candidates).find(|block| u32::from(block.network()) > end);
    Some(behind.unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::own::{Subnet, Vpc};

    fn check(cidr: &str, subnets: &[&str], used: &[&str], pods_max: u32, expected: Option<&str>) {
        let subnet = |text: &&str| Subnet { cidr: text.parse().unwrap(), ..Subnet::default() };
        let vpc = Vpc { cidr: cidr.parse().ok(), subnets: subnets.iter().map(subnet).collect() };
        let cluster = ClusterSpec { vpc, ..ClusterSpec::default() };
        let used: Vec<Ipv4Net> = used.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(free(&cluster, &used, pods_max).map(|block| block.to_string()).as_deref(), expected);
    }

    #[test]
    fn blocks_lie_behind_the_subnets_and_apart() {
        let subnets = ["192.168.96.0/19", "192.168.160.0/19"];
        check("192.168.0.0/16", &subnets, &[], 17, Some("192.168.192.0/27"));
        check("192.168.0.0/16", &subnets, &["192.168.192.0/27"], 29, Some("192.168.192.32/27"));
        check("192.168.0.0/16", &subnets, &["192.168.192.0/27"], 110, Some("192.168.192.128/25"));
        check("10.0.0.0/24", &["10.0.0.128/25"], &[], 17, Some("10.0.0.0/27"));
        check("10.0.0.0/24", &["10.0.0.128/25"], &["10.0.0.0/25"], 17, None);
        check("10.0.0.0/27", &[], &[], 110, None);
        assert_eq!(node_address("10.0.0.32/27".parse().unwrap()).to_string(), "10.0.0.33");
    }
}
