//! Which address a pod gets.
//!
//! Each subnet keeps its first four addresses and its last for itself, as in a VPC. A pod gets an address from the subnet
//! with the most free ones, the next after the one given last, so that an address is not reused while others still remember it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use isopod_types::own::Subnet;

/// Addresses at the start of a subnet that no pod gets.
const RESERVED_FIRST: u32 = 4;

/// An address and the subnet it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned<'a> {
    /// The subnet.
    pub subnet: &'a Subnet,
    /// The address.
    pub address: Ipv4Addr,
}

/// First and last address of a subnet that pods can get.
fn usable(cidr: Ipv4Net) -> (u32, u32) {
    (u32::from(cidr.network()) + RESERVED_FIRST, u32::from(cidr.broadcast()).saturating_sub(1))
}

/// Number of addresses of a subnet that pods can get.
pub fn capacity(cidr: Ipv4Net) -> usize {
    let (first, last) = usable(cidr);
    if last < first { 0 } else { (last - first + 1) as usize }
}

fn used_in(cidr: Ipv4Net, used: &BTreeSet<Ipv4Addr>) -> usize {
    let (first, last) = usable(cidr);
    if last < first { 0 } else { used.range(Ipv4Addr::from(first)..=Ipv4Addr::from(last)).count() }
}

/// The first free address after `cursor` in a subnet, wrapping around.
fn next_free(cidr: Ipv4Net, used: &BTreeSet<Ipv4Addr>, cursor: Ipv4Addr) -> Option<Ipv4Addr> {
    let (first, last) = usable(cidr);
    let start = u32::from(cursor).saturating_add(1).clamp(first, last.max(first));
    let mut candidates = (start..=last).chain(first..start).map(Ipv4Addr::from);
    candidates.find(|address| !used.contains(address))
}

/// An address from one of the subnets, or nothing when all are full. `cursors` are the addresses given last, per subnet.
pub fn assign<'a>(
    subnets: &[&'a Subnet],
    used: &BTreeSet<Ipv4Addr>,
    cursors: &BTreeMap<String, Ipv4Addr>,
) -> Option<Assigned<'a>> {
    let free = |subnet: &&&'a Subnet| capacity(subnet.cidr).saturating_sub(used_in(subnet.cidr, used));
    let mut open: Vec<&&'a Subnet> = subnets.iter().filter(|subnet| free(subnet) > 0).collect();
    open.sort_by_key(|subnet| (std::cmp::Reverse(free(subnet)), &subnet.id));
    let subnet = open.first()?;
    let cursor = cursors.get(&subnet.id).copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(Assigned { subnet, address: next_free(subnet.cidr, used, cursor)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, cidr: &str) -> Subnet {
        Subnet { id: id.into(), cidr: cidr.parse().unwrap(), zone: String::new() }
    }

    fn check(cidr: &str, used: &[&str], cursor: &str, expected: Option<&str>) {
        let subnet = subnet("subnet-a", cidr);
        let used = used.iter().map(|a| a.parse().unwrap()).collect();
        let cursors = BTreeMap::from([("subnet-a".to_owned(), cursor.parse().unwrap())]);
        let found = assign(&[&subnet], &used, &cursors);
        assert_eq!(found.map(|a| a.address.to_string()).as_deref(), expected);
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_used_or_reserved() {
        check("10.0.0.0/28", &[], "0.0.0.0", Some("10.0.0.4"));
        check("10.0.0.0/28", &["10.0.0.4", "10.0.0.5"], "10.0.0.4", Some("10.0.0.6"));
        check("10.0.0.0/28", &[], "10.0.0.14", Some("10.0.0.14"));
        check("10.0.0.0/28", &["10.0.0.14"], "10.0.0.14", Some("10.0.0.4"));
        check("10.0.0.0/29", &["10.0.0.4", "10.0.0.5", "10.0.0.6"], "10.0.0.4", None);
        check("10.0.0.0/30", &[], "0.0.0.0", None);
    }

    #[test]
    fn the_emptier_subnet_is_taken() {
        let (a, b) = (subnet("subnet-a", "10.0.0.0/28"), subnet("subnet-b", "10.0.1.0/28"));
        let used = BTreeSet::from(["10.0.0.4".parse().unwrap()]);
        assert_eq!(assign(&[&a, &b], &used, &BTreeMap::new()).unwrap().subnet.id, "subnet-b");
    }

    #[test]
    fn capacity_is_the_vpcs() {
        for (cidr, expected) in [("10.0.0.0/20", 4091), ("10.0.0.0/24", 251), ("10.0.0.0/30", 0)] {
            assert_eq!(capacity(cidr.parse().unwrap()), expected);
        }
    }
}
