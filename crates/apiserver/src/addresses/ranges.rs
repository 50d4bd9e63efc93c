//! Where addresses and node ports are chosen: the ranges of ready ServiceCIDRs, upper part first, so that those who ask
//! for an address themselves find the lower part free. The choosing is pure but for its random place to begin.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};
use isopod_schema::Status;
use isopod_store::ListQuery;
use serde_json::Value;

use super::claims::Taken;
use super::objects::RANGES;
use crate::codec;
use crate::server::ApiServer;
use crate::strategy;

pub(super) const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Node ports below are given only when none above is left.
const FIRST_DYNAMIC_PORT: u16 = 30_086;
/// Addresses at the beginning of a range that are given last: a sixteenth of it, within these bounds.
const STATIC_ADDRESSES: RangeInclusive<u32> = 16..=256;

/// The IPv4 ranges from which addresses are given now.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn ready(server: &ApiServer) -> Result<Vec<Ipv4Net>, Status> {
    let list = server.store.list(&ListQuery { prefix: RANGES.into(), ..ListQuery::default() });
    let entries = list.map_err(Status::internal)?.entries;
    if entries.is_empty() {
        return Ok(vec![server.config.service_cidr]);
    }
    let objects = entries.iter().filter_map(|entry| codec::object(entry)).filter(|object| is_ready(object));
    Ok(objects.flat_map(|object| cidrs(&object)).filter_map(v4).collect())
}

fn v4(range: IpNet) -> Option<Ipv4Net> {
    match range {
        IpNet::V4(range) => Some(range),
        IpNet::V6(_) => None,
    }
}

/// The ranges of a ServiceCIDR.
pub(super) fn cidrs(object: &Value) -> Vec<IpNet> {
    let list = object["spec"]["cidrs"].as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str()?.parse().ok()).collect()
}

/// One that nobody has judged yet counts as ready.
fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut judged = conditions.filter(|condition| condition["type"] == "Ready");
    !strategy::is_deleting(object) && judged.all(|condition| condition["status"] == "True")
}

/// Addresses that Services may have: all but the first and the last.
pub(super) fn holds(range: &Ipv4Net, address: Ipv4Addr) -> bool {
    range.contains(&address) && address != range.network() && address != range.broadcast()
}

/// The static part of a range with so many addresses.
fn static_count(count: u32) -> u32 {
    match count {
        small if small <= *STATIC_ADDRESSES.start() => 0,
        count => (count / 16).clamp(*STATIC_ADDRESSES.start(), *STATIC_ADDRESSES.end()),
    }
}

/// The first free address of `from..from + count`, beginning anywhere.
fn search(from: u32, count: u32, is_free: impl Fn(&Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let offset = random() % count.max(1);
    (0..count).map(|step| Ipv4Addr::from(from + (offset + step) % count)).find(is_free)
}

fn random() -> u32 {
    let [a, b, c, d, ..] = crate::create::random();
    u32::from_le_bytes([a, b, c, d])
}

/// A free address of these ranges, in their order; none when all are full.
pub(super) fn free_address(ranges: &[Ipv4Net], taken: &Taken) -> Option<Ipv4Addr> {
    let is_free = |address: &Ipv4Addr| !taken.addresses.contains(&IpAddr::V4(*address));
    ranges.iter().find_map(|range| {
        let first = u32::from(range.network()) + 1;
        let count = u32::from(range.broadcast()).saturating_sub(first);
        let low = static_count(count.saturating_add(1)).min(count);
        search(first + low, count - low, is_free).or_else(|| search(first, low, is_free))
    })
}

/// A node port for which `is_free` holds; none when all are taken.
pub(super) fn free_port(is_free: impl Fn(&u16) -> bool) -> Option<u16> {
    let (first, last) = (FIRST_DYNAMIC_PORT, *NODE_PORTS.end());
    let count = last - first + 1;
    let offset = (random() % u32::from(count)) as u16;
    let dynamic = (0..count).map(|step| first + (offset + step) % count);
    dynamic.chain(*NODE_PORTS.start()..first).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_upper_part_first() {
        // range, how many are given before the lower part, all there are
        let table = [("10.0.0.0/28", 14, 14), ("10.0.0.0/24", 238, 254), ("10.0.0.0/16", 65_278, 65_534)];
        for (range, dynamic, all) in table {
            let range: Ipv4Net = range.parse().unwrap();
            let mut taken = Taken::default();
            let below = Ipv4Addr::from(u32::from(range.network()) + 1 + (all - dynamic));
            for given in 0..if all < 300 { all } else { 300 } {
                let address = free_address(&[range], &taken).unwrap();
                assert!(holds(&range, address), "{address}");
                assert_eq!(address >= below, given < dynamic, "{range}: {address} was number {given}");
                taken.addresses.insert(IpAddr::V4(address));
            }
            assert_eq!(free_address(&[range], &taken).is_some(), all > 300);
        }
    }

    #[test]
    fn ports_come_from_the_upper_part_first() {
        assert!(free_port(|_| true).unwrap() >= FIRST_DYNAMIC_PORT);
        assert_eq!(free_port(|port| *port < FIRST_DYNAMIC_PORT), Some(30_000));
        assert_eq!(free_port(|port| *port == 32_767), Some(32_767));
        assert_eq!(free_port(|_| false), None);
    }
}
