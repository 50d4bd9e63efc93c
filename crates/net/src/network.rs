//! One cluster's network on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rtnetlink::Handle;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::error::NetError;
use crate::ruleset::{self, HostPort, Names, Protocol, RoutingTable};
use crate::{links, tap};

/// The gateway of every microVM, and the address at which the host's own services answer them.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What a cluster's network depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the cluster.
    pub cluster: String,
    /// All addresses of the cluster.
    pub vpc: Ipv4Net,
}

/// A short tag that tells the clusters of a host apart, stable for a name.
fn tag(cluster: &str) -> String {
    let hash = fnv(cluster);
    format!("{:04x}", hash >> 16 ^ hash & 0xffff)
}

/// FNV-1a.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// One cluster's network on this host. Clones share it.
#[derive(Clone, Debug)]
pub struct Network {
    names: Arc<Names>,
    handle: Handle,
    /// Addresses allowed per tap: one, or those of a node and its pods.
    pods: Arc<Mutex<BTreeMap<String, BTreeSet<Ipv4Addr>>>>,
    routes: Arc<Mutex<RoutingTable>>,
    published: Arc<Mutex<Published>>,
}

/// Where ports of nodes lead: pod and its port, by node, protocol and port.
type Published = BTreeMap<(Ipv4Addr, Protocol, u16), (Ipv4Addr, HostPort)>;

impl Network {
    /// Opens the network: forwarding, the gateway's address, the table. Pods of an earlier process keep theirs.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn open(settings: &Settings) -> Result<Self, NetError> {
        let network = Self::connect(settings)?;
        enable_forwarding()?;
        network.add_gateway().await?;
        run_nft(&ruleset::base(&network.names)).await?;
        Ok(network)
    }

    fn connect(settings: &Settings) -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetError::Netlink { what: "netlink".into(), reason: source.to_string() })?;
        tokio::spawn(connection);
        let tag = tag(&settings.cluster);
        let names = Names { table: format!("isopod_{tag}"), prefix: format!("ip{tag}-"), vpc: settings.vpc };
        Ok(Self {
            names: Arc::new(names),
            handle,
            pods: Arc::default(),
            routes: Arc::default(),
            published: Arc::default(),
        })
    }

    /// The gateway's address lives on a tap of its own, since not every kernel has dummy interfaces.
    async fn add_gateway(&self) -> Result<(), NetError> {
        let name = format!("{}gw", self.names.prefix);
        let index = self.tap_index(&name).await?;
        links::add_address(&self.handle, index, GATEWAY).await?;
        links::up(&self.handle, index).await
    }

    async fn tap_index(&self, name: &str) -> Result<u32, NetError> {
        if let Ok(index) = links::index(&self.handle, name).await {
            return Ok(index);
        }
        tap::create(name).map_err(|source| NetError::Tap { name: name.into(), source })?;
        links::index(&self.handle, name).await
    }

    /// The name of the tap for a microVM: the cluster's prefix and a hash of the id, since names are short.
    pub fn tap_name(&self, id: &str) -> String {
        format!("{}{:08x}", self.names.prefix, fnv(id))
    }

    /// Makes the tap of a microVM, up but without an address.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn create_tap(&self, id: &str) -> Result<String, NetError> {
        let name = self.tap_name(id);
        let index = self.tap_index(&name).await?;
        links::up(&self.handle, index).await?;
        Ok(name)
    }

    /// Gives a tap its machine's address, in place of all it had: from now on it is routed there and may be spoken under.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn attach(&self, tap: &str, address: Ipv4Addr) -> Result<(), NetError> {
        let mut pods = self.pods.lock().await;
        let mut text = String::new();
        for old in pods.remove(tap).unwrap_or_default().into_iter().filter(|old| *old != address) {
            text.push_str(&ruleset::disallow(&self.names, tap, old));
        }
        self.allow(text, tap, address).await?;
        pods.insert(tap.to_owned(), [address].into());
        Ok(())
    }

    /// Gives a tap one more address: a pod's on a machine that is a node.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn admit(&self, tap: &str, address: Ipv4Addr) -> Result<(), NetError> {
        let mut pods = self.pods.lock().await;
        self.allow(String::new(), tap, address).await?;
        pods.entry(tap.to_owned()).or_default().insert(address);
        Ok(())
    }

    async fn allow(&self, mut text: String, tap: &str, address: Ipv4Addr) -> Result<(), NetError> {
        let index = links::index(&self.handle, tap).await?;
        text.push_str(&ruleset::allow(&self.names, tap, address));
        run_nft(&text).await?;
        links::route(&self.handle, index, address).await
    }

    /// Makes ports of a node lead to one of its pods, in place of whatever they led to. They go with the pod's address.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn publish(&self, node: Ipv4Addr, pod: Ipv4Addr, ports: &[HostPort]) -> Result<(), NetError> {
        let mut published = self.published.lock().await;
        let mut next = published.clone();
        let mut text = String::new();
        for port in ports {
            if let Some((old, was)) = next.insert((node, port.protocol, port.port), (pod, *port)) {
                text.push_str(&ruleset::host_port(&self.names, "delete", node, was, old));
            }
            text.push_str(&ruleset::host_port(&self.names, "add", node, *port, pod));
        }
        if !text.is_empty() {
            run_nft(&text).await?;
        }
        *published = next;
        Ok(())
    }

    /// Ports that led to these addresses lead nowhere.
    async fn unpublish(&self, addresses: &BTreeSet<Ipv4Addr>) -> Result<(), NetError> {
        let mut published = self.published.lock().await;
        let (gone, left): (Published, Published) = published.iter().partition(|(_, (pod, _))| addresses.contains(pod));
        if gone.is_empty() {
            return Ok(());
        }
        let delete = |((node, ..), (pod, port)): (&(Ipv4Addr, Protocol, u16), &(Ipv4Addr, HostPort))| {
            ruleset::host_port(&self.names, "delete", *node, *port, *pod)
        };
        run_nft(&gone.iter().map(delete).collect::<String>()).await?;
        *published = left;
        Ok(())
    }

    /// Takes one of its addresses from a tap.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn dismiss(&self, tap: &str, address: Ipv4Addr) -> Result<(), NetError> {
        self.unpublish(&[address].into()).await?;
        let mut pods = self.pods.lock().await;
        let Some(addresses) = pods.get_mut(tap).filter(|addresses| addresses.contains(&address)) else { return Ok(()) };
        run_nft(&ruleset::disallow(&self.names, tap, address)).await?;
        addresses.remove(&address);
        let index = links::index(&self.handle, tap).await?;
        links::unroute(&self.handle, index, address).await
    }

    /// Takes a tap away, with its routes and its right to speak.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn delete_tap(&self, tap: &str) -> Result<(), NetError> {
        let mut pods = self.pods.lock().await;
        let addresses = pods.remove(tap).unwrap_or_default();
        self.unpublish(&addresses).await?;
        let text: String = addresses.into_iter().map(|address| ruleset::disallow(&self.names, tap, address)).collect();
        if !text.is_empty() {
            run_nft(&text).await?;
        }
        links::delete(&self.handle, tap).await
    }

    /// Makes these virtual addresses lead where they should; nothing happens when they do already.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn apply(&self, routes: RoutingTable) -> Result<(), NetError> {
        let mut current = self.routes.lock().await;
        if *current != routes {
            run_nft(&ruleset::services(&self.names, &routes)).await?;
            *current = routes;
        }
        Ok(())
    }

    /// Deletes taps that no microVM in `known` has, and their rights to speak.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn sweep(&self, known: &BTreeSet<String>) -> Result<(), NetError> {
        let gateway = format!("{}gw", self.names.prefix);
        for name in links::names(&self.handle, &self.names.prefix).await? {
            if name != gateway && !known.contains(&name) {
                tracing::info!(tap = name, "deleting a tap without a microVM");
                links::delete(&self.handle, &name).await?;
            }
        }
        let listing = list_set(&self.names.table, "pods").await?;
        let stale = ruleset::elements(&listing).into_iter().filter(|(tap, _)| !known.contains(tap));
        let text: String = stale.map(|(tap, address)| ruleset::disallow(&self.names, &tap, address)).collect();
        if text.is_empty() { Ok(()) } else { run_nft(&text).await }
    }

    /// Removes everything a cluster has in this host's network.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn teardown(settings: &Settings) -> Result<(), NetError> {
        let network = Self::connect(settings)?;
        let table = &network.names.table;
        run_nft(&format!("table inet {table} {{}}\ndelete table inet {table}\n")).await?;
        for name in links::names(&network.handle, &network.names.prefix).await? {
            links::delete(&network.handle, &name).await?;
        }
        Ok(())
    }
}

/// The first of the candidates that no route of this host overlaps.
///
/// # Errors
/// [`NetError`] when routes cannot be read.
pub async fn free_cidr(candidates: &[Ipv4Net]) -> Result<Option<Ipv4Net>, NetError> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|source| NetError::Netlink { what: "netlink".into(), reason: source.to_string() })?;
    tokio::spawn(connection);
    let taken = links::networks(&handle).await?;
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    let free = |candidate: &&Ipv4Net| !taken.iter().any(|used| used.prefix_len() > 0 && overlaps(candidate, used));
    Ok(candidates.iter().find(free).copied())
}

/// Routing between interfaces; left on when the cluster goes, since others may rely on it by then.
fn enable_forwarding() -> Result<(), NetError> {
    let setting = |source| NetError::Setting { path: FORWARDING.into(), source };
    if std::fs::read_to_string(FORWARDING).map_err(setting)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(FORWARDING, "1").map_err(setting)
}

/// The content of a set, as `nft` prints it in JSON.
async fn list_set(table: &str, set: &str) -> Result<serde_json::Value, NetError> {
    let mut command = tokio::process::Command::new("nft");
    command.args(["-j", "list", "set", "inet", table, set]);
    let output = command.output().await.map_err(|error| NetError::Nftables(error.to_string()))?;
    serde_json::from_slice(&output.stdout).map_err(|error| NetError::Nftables(format!("set {set}: {error}")))
}

/// Runs one nftables transaction.
async fn run_nft(text: &str) -> Result<(), NetError> {
    let failed = |error: std::io::Error| NetError::Nftables(error.to_string());
    let mut command = tokio::process::Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Nftables(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_taps_fit_an_interface() {
        assert_eq!(tag("demo"), tag("demo"));
        assert_ne!(tag("demo"), tag("demo2"));
        assert_eq!(format!("ip{}-", tag("x")).len() + 8, 15);
    }
}
