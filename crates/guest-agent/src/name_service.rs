//! The files from which programs know names: `hosts`, `hostname`, `resolv.conf`; of a pod, and of a node for pods that look at
//! its files or use its network. The headers are the kubelet's, by which its users tell whose a file is.

use std::{fs, io, path::Path};

use isopod_guest_api::{NetworkConfig, NodeConfig, PodConfig};

const POD_HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_NETWORK_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// Writes a pod's.
pub(crate) fn of_pod(directory: &Path, config: &PodConfig) -> io::Result<()> {
    let header = if config.host_network { HOST_NETWORK_HEADER } else { POD_HEADER };
    let mut hosts = header.to_owned() + &known(&config.hostname, config.network.as_ref());
    for line in &config.hosts {
        hosts.push_str(line.trim_end_matches('\n'));
        hosts.push('\n');
    }
    write(directory, &config.hostname, &hosts, config.network.as_ref())
}

/// Writes a node's.
pub(crate) fn of_node(directory: &Path, config: &NodeConfig) -> io::Result<()> {
    let hosts = known(&config.hostname, config.network.as_ref());
    write(directory, &config.hostname, &hosts, config.network.as_ref())
}

fn write(directory: &Path, hostname: &str, hosts: &str, network: Option<&NetworkConfig>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("hostname"), format!("{hostname}\n"))?;
    fs::write(directory.join("hosts"), hosts)?;
    fs::write(directory.join("resolv.conf"), network.map(resolv_conf).unwrap_or_default())
}

fn known(hostname: &str, network: Option<&NetworkConfig>) -> String {
    let own = network.map(|network| format!("{}\t{hostname}\n", network.ipv4_address));
    LOOPBACK.to_owned() + &own.unwrap_or_default()
}

fn resolv_conf(network: &NetworkConfig) -> String {
    let mut text = String::new();
    if !network.search.is_empty() {
        text.push_str(&format!("search {}\n", network.search.join(" ")));
    }
    for server in &network.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !network.options.is_empty() {
        text.push_str(&format!("options {}\n", network.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_the_pod_says() {
        let network = NetworkConfig {
            ipv4_address: "10.0.0.5".into(),
            nameservers: vec!["10.96.0.10".into(), "8.8.8.8".into()],
            search: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
            ..NetworkConfig::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let config = PodConfig {
            hostname: "web-0".into(),
            network: Some(network.clone()),
            hosts: vec!["1.2.3.4\tfoo bar".into()],
            ..PodConfig::default()
        };
        of_pod(directory.path(), &config).unwrap();
        assert_eq!(
            read("resolv.conf"),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver 8.8.8.8\noptions ndots:5\n"
        );
        assert_eq!(read("hostname"), "web-0\n");
        let hosts = read("hosts");
        assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{hosts}");
        assert!(hosts.ends_with("10.0.0.5\tweb-0\n1.2.3.4\tfoo bar\n"), "{hosts}");
        of_pod(directory.path(), &PodConfig { host_network: true, ..config }).unwrap();
        assert!(read("hosts").starts_with("# Kubernetes-managed hosts file (host network).\n"));
        let node = NodeConfig { hostname: "node-1".into(), network: Some(network), ..NodeConfig::default() };
        of_node(directory.path(), &node).unwrap();
        assert!(read("hosts").starts_with("127.0.0.1\tlocalhost\n") && read("hosts").ends_with("10.0.0.5\tnode-1\n"));
    }
}
