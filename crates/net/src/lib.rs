//! Makes a cluster's network real on one host: a tap per microVM, routes, nftables, and a DNS relay.
//!
//! Every microVM is routed, not bridged: its tap leads to one host route, and its gateway is the same link-local address in
//! every VM. One nftables table per cluster translates virtual addresses, masquerades what leaves the cluster, and
//! drops what a guest sends under an address that is not its own. All of it carries the cluster's tag in
//! its name, so that a restart can adopt it and a teardown finds everything.

mod dns;
mod error;
mod links;
mod network;
mod ruleset;
mod tap;

pub use dns::{DnsRelay, upstreams_of_this_host};
pub use error::NetError;
pub use network::{GATEWAY, Network, Settings, free_cidr};
pub use ruleset::{HostPort, Protocol, RoutingTable, Virtual};
