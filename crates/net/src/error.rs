//! What can go wrong with the network.

/// A trouble with the network: what was tried, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A tap could not be made.
    #[error("network: tap {name}: {source} (hint: /dev/net/tun must exist and isopod must run as root)")]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused a link, address or route.
    #[error("network: {what}: {reason}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The kernel's words.
        reason: String,
    },
    /// `nft` refused a change.
    #[error("network: nft: {0} (hint: is the nftables package installed and the kernel able to NAT?)")]
    Nftables(String),
    /// A kernel setting could not be changed.
    #[error("network: {path}: {source}")]
    Setting {
        /// The file under /proc/sys.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The DNS relay could not listen.
    #[error("network: DNS relay on {address}: {source}")]
    Dns {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}
