//! The nftables text of a cluster. Pure: settings and a routing table in, text out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A virtual address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Virtual {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Which virtual addresses lead where. Each has one endpoint or more; connections are spread evenly.
pub type RoutingTable = BTreeMap<Virtual, Vec<(Ipv4Addr, u16)>>;

/// A port of a node that leads to one of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the node.
    pub port: u16,
    /// Port of the pod.
    pub pod_port: u16,
}

/// What the text depends on.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Table.
    pub(crate) table: String,
    /// Prefix of the cluster's taps.
    pub(crate) prefix: String,
    /// All addresses of the cluster.
    pub(crate) vpc: Ipv4Net,
}

/// Chains with their hooks; `services` is filled by [`services`] and called by two others.
const CHAINS: [(&str, &str); 7] = [
    ("services", ""),
    ("guard", "type filter hook prerouting priority raw; policy accept;"),
    ("before", "type nat hook prerouting priority dstnat; policy accept;"),
    ("output", "type nat hook output priority -100; policy accept;"),
    ("after", "type nat hook postrouting priority srcnat; policy accept;"),
    ("forward", "type filter hook forward priority filter; policy accept;"),
    ("input", "type filter hook input priority filter; policy accept;"),
];

fn rules(chain: &str, names: &Names) -> Vec<String> {
    let Names { prefix, vpc, .. } = names;
    let from = format!("iifname \"{prefix}*\"");
    match chain {
        "guard" => {
            vec![format!("{from} meta nfproto ipv6 drop"), format!("{from} iifname . ip saddr != @pods counter drop")]
        }
        "before" | "output" => vec![
            "jump services".into(),
            "meta l4proto { tcp, udp } dnat ip to ip daddr . meta l4proto . th dport map @hostports".into(),
        ],
        "after" => {
            vec![format!("ip saddr {vpc} ip daddr != {vpc} oifname != \"{prefix}*\" oifname != \"lo\" masquerade")]
        }
        "forward" => {
            vec![format!("oifname \"{prefix}*\" iifname != \"{prefix}*\" ct state established,related accept")]
        }
        "input" => {
            ["ct state established,related accept", "ct status dnat accept", "meta l4proto icmp accept", "counter drop"]
                .map(|rule| format!("{from} {rule}"))
                .into()
        }
        _ => Vec::new(),
    }
}

/// The table in one transaction. What an earlier process put into it stays in force: pods' addresses and services. Ports of nodes
/// come again with the pods that are taken up again.
pub(crate) fn base(names: &Names) -> String {
    let table = &names.table;
    let mut text = format!("add table inet {table}\nadd set inet {table} pods {{ type ifname . ipv4_addr; }}\n");
    let kinds = "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service";
    text.push_str(&format!("add map inet {table} hostports {{ {kinds}; }}\nflush map inet {table} hostports\n"));
    for (chain, hook) in CHAINS {
        let body = if hook.is_empty() { String::new() } else { format!(" {{ {hook} }}") };
        text.push_str(&format!("add chain inet {table} {chain}{body}\n"));
        if chain != "services" {
            text.push_str(&format!("flush chain inet {table} {chain}\n"));
        }
        for rule in rules(chain, names) {
            text.push_str(&format!("add rule inet {table} {chain} {rule}\n"));
        }
    }
    text
}

/// Tap and address of every element in what `nft -j list set` printed.
pub(crate) fn elements(listing: &serde_json::Value) -> Vec<(String, Ipv4Addr)> {
    let sets = listing["nftables"].as_array().into_iter().flatten().filter_map(|entry| entry["set"]["elem"].as_array());
    let element = |element: &serde_json::Value| {
        let parts = element["concat"].as_array()?;
        Some((parts.first()?.as_str()?.to_owned(), parts.get(1)?.as_str()?.parse().ok()?))
    };
    sets.flatten().filter_map(element).collect()
}

/// Allows a pod's address on its tap.
pub(crate) fn allow(names: &Names, tap: &str, address: Ipv4Addr) -> String {
    format!("add element inet {} pods {{ \"{tap}\" . {address} }}\n", names.table)
}

/// Takes a pod's address from its tap.
pub(crate) fn disallow(names: &Names, tap: &str, address: Ipv4Addr) -> String {
    format!("delete element inet {} pods {{ \"{tap}\" . {address} }}\n", names.table)
}

/// Makes a port of a node lead to a pod (`add`), or not any more (`delete`).
pub(crate) fn host_port(names: &Names, verb: &str, node: Ipv4Addr, port: HostPort, pod: Ipv4Addr) -> String {
    let HostPort { protocol, port, pod_port } = port;
    let key = format!("{node} . {} . {port}", protocol.text());
    format!("{verb} element inet {} hostports {{ {key} : {pod} . {pod_port} }}\n", names.table)
}

/// The rules of all virtual addresses, replacing the earlier ones in one transaction.
pub(crate) fn services(names: &Names, routes: &RoutingTable) -> String {
    let table = &names.table;
    let mut text = format!("flush chain inet {table} services\n");
    for (from, to) in routes {
        let Virtual { address, port, protocol } = from;
        let protocol = protocol.text();
        let targets: BTreeSet<&(Ipv4Addr, u16)> = to.iter().collect();
        let rule = format!("add rule inet {table} services ip daddr {address} {protocol} dport {port}");
        let written = match targets.len() {
            0 => writeln!(text, "{rule} drop"),
            1 => writeln!(text, "{rule} dnat ip to {}", endpoints(&targets, |_, to| to)),
            count => writeln!(
                text,
                "{rule} dnat ip to numgen random mod {count} map {{ {} }}",
                endpoints(&targets, |index, to| format!("{index} : {}", to.replace(':', " . ")))
            ),
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    text
}

fn endpoints(targets: &BTreeSet<&(Ipv4Addr, u16)>, form: impl Fn(usize, String) -> String) -> String {
    let all = targets.iter().enumerate().map(|(index, (address, port))| form(index, format!("{address}:{port}")));
    all.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { table: "isopod_t".into(), prefix: "ipt-".into(), vpc: "192.168.0.0/16".parse().unwrap() }
    }

    #[test]
    fn virtual_addresses_become_translations() {
        let one = |port| Virtual { address: "10.100.0.1".parse().unwrap(), port, protocol: Protocol::Tcp };
        let to = |last: u8| (Ipv4Addr::new(192, 168, 0, last), 8080);
        let routes = RoutingTable::from([(one(443), vec![to(1)]), (one(80), vec![to(1), to(2)]), (one(81), vec![])]);
        let text = services(&names(), &routes);
        for line in [
            "flush chain inet isopod_t services",
            "ip daddr 10.100.0.1 tcp dport 443 dnat ip to 192.168.0.1:8080",
            "tcp dport 80 dnat ip to numgen random mod 2 map { 0 : 192.168.0.1 . 8080, 1 : 192.168.0.2 . 8080 }",
            "tcp dport 81 drop",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn elements_are_read_back() {
        let listing = serde_json::json!({"nftables": [{"metainfo": {}}, {"set": {"elem": [{"concat": ["ipt-1", "10.0.0.4"]}, "odd"]}}]});
        assert_eq!(elements(&listing), [("ipt-1".to_owned(), Ipv4Addr::new(10, 0, 0, 4))]);
    }

    #[test]
    fn guests_may_only_speak_under_their_own_address() {
        let text = base(&names());
        assert!(text.contains("iifname . ip saddr != @pods counter drop"), "{text}");
        assert!(allow(&names(), "ipt-1", Ipv4Addr::LOCALHOST).contains("pods { \"ipt-1\" . 127.0.0.1 }"));
    }
}
