//! Ports of the node that pods ask for, and which of them exclude each other.

use std::collections::BTreeMap;

use isopod_types::pod::{ContainerPort, PodSpec};

/// The address that stands for all.
const EVERY_ADDRESS: &str = "0.0.0.0";

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port.
    pub port: u16,
    /// Address; `0.0.0.0` stands for all.
    pub address: String,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn excludes(&self, other: &Self) -> bool {
        let overlap = self.address == other.address || self.address == EVERY_ADDRESS || other.address == EVERY_ADDRESS;
        self.protocol == other.protocol && self.port == other.port && overlap
    }
}

fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

/// The node's ports that a pod asks for, each with the port of the pod that it leads to; sidecars ask too, other init containers do not.
pub fn led(spec: &PodSpec) -> impl Iterator<Item = (HostPort, u16)> + '_ {
    let staying = spec.init_containers.iter().filter(|container| container.is_sidecar()).chain(&spec.containers);
    let lead = |port: &ContainerPort| {
        let number = port.host_port.filter(|number| *number != 0)?;
        let address = or(port.host_ip.as_deref().unwrap_or_default(), EVERY_ADDRESS);
        let from = HostPort { protocol: or(&port.protocol, "TCP").into(), port: number, address: address.into() };
        Some((from, port.container_port))
    };
    staying.flat_map(|container| &container.ports).filter_map(lead)
}

/// The node's ports that a pod asks for.
pub fn wanted(spec: &PodSpec) -> Vec<HostPort> {
    led(spec).map(|(port, _)| port).collect()
}

/// Ports in use on a node, with how many pods hold each.
#[derive(Clone, Debug, Default)]
pub struct UsedPorts(BTreeMap<HostPort, usize>);

impl UsedPorts {
    /// A pod with these ports came.
    pub fn add(&mut self, ports: &[HostPort]) {
        for port in ports {
            *self.0.entry(port.clone()).or_default() += 1;
        }
    }

    /// A pod with these ports went.
    pub fn remove(&mut self, ports: &[HostPort]) {
        for port in ports {
            let left = self.0.get_mut(port).map(|count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == Some(0) {
                self.0.remove(port);
            }
        }
    }

    /// Whether none of these is taken.
    pub fn are_free(&self, wanted: &[HostPort]) -> bool {
        wanted.iter().all(|wanted| !self.0.keys().any(|used| used.excludes(wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(text: &str) -> HostPort {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap().to_owned();
        HostPort { protocol: next(), port: next().parse().unwrap(), address: next() }
    }

    #[test]
    fn ports_exclude_each_other() {
        for (used, wanted, free) in [
            ("TCP/80/0.0.0.0", "TCP/80/0.0.0.0", false),
            ("TCP/80/0.0.0.0", "TCP/80/127.0.0.1", false),
            ("TCP/80/127.0.0.1", "TCP/80/0.0.0.0", false),
            ("TCP/80/127.0.0.1", "TCP/80/127.0.0.2", true),
            ("TCP/80/0.0.0.0", "UDP/80/0.0.0.0", true),
            ("TCP/80/0.0.0.0", "TCP/81/0.0.0.0", true),
        ] {
            let mut all = UsedPorts::default();
            all.add(&[port(used)]);
            assert_eq!(all.are_free(&[port(wanted)]), free, "{used} {wanted}");
            all.add(&[port(used)]);
            all.remove(&[port(used)]);
            assert_eq!(all.are_free(&[port(wanted)]), free, "{used} {wanted}");
            all.remove(&[port(used)]);
            assert!(all.are_free(&[port(wanted)]));
        }
    }

    #[test]
    fn only_ports_of_the_node_count() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 2, "protocol": "UDP", "hostIP": "127.0.0.1"}]}],
            "initContainers": [{"ports": [{"containerPort": 3, "hostPort": 3}]}, {"restartPolicy": "Always", "ports": [{"containerPort": 4, "hostPort": 4}]}],
        }))
        .unwrap();
        assert_eq!(wanted(&spec), [port("TCP/4/0.0.0.0"), port("UDP/2/127.0.0.1")]);
    }
}
