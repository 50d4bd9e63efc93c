//! `isopod create cluster|fargateprofile`, `isopod start cluster`.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use ipnet::Ipv4Net;
use isopod_types::cluster_config::{ClusterConfig, ProfileConfig};
use isopod_types::own::{FargateProfileSpec, ProfileSelector};
use jiff::Timestamp;

use crate::args::ClusterName;
use crate::cluster::{self, Cluster, ClusterFile, Places, require_root};
use crate::kubeconfig::{self, context_name};
use crate::progress::{done, info, warn};
use crate::{delete, doctor, nodegroup, server};

/// Port of the API server, unless it is taken.
const PORT: u16 = 6443;
/// Ports tried when none was asked for.
const PORTS_TRIED: u16 = 20;
/// Networks tried for pods when none was asked for, the seeds' first.
const VPC_CIDRS: [&str; 4] = ["192.168.0.0/16", "10.128.0.0/16", "10.129.0.0/16", "172.28.0.0/16"];
/// How long a server that was killed may take to be gone.
const ENDING: Duration = Duration::from_millis(300);
/// Network of Services, as on EKS.
const SERVICE_CIDR: &str = "10.100.0.0/16";

/// Flags of `create cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster.
    #[arg(long, conflicts_with = "config_file")]
    name: Option<String>,
    /// Region, part of node names.
    #[arg(long, default_value = "local", conflicts_with = "config_file")]
    region: String,
    /// Make profile fp-default: all pods of namespaces default and kube-system run on Fargate.
    #[arg(long, conflicts_with = "config_file")]
    fargate: bool,
    /// A ClusterConfig file (eksctl.io/v1alpha5); `-` for standard input.
    #[arg(short = 'f', long)]
    config_file: Option<PathBuf>,
    /// Port of the API server; default: 6443 or the next free one.
    #[arg(long)]
    port: Option<u16>,
    /// Address of the API server for users.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Kubeconfig that gets the cluster's entries; default: the one kubectl uses.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Flags of `create fargateprofile`.
#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    cluster: ClusterName,
    /// Name of the profile.
    #[arg(long)]
    name: String,
    /// Namespace of its pods; `*` and `?` are wildcards.
    #[arg(long)]
    namespace: String,
    /// Labels of its pods, such as `app=web,tier=front`.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
}

/// Reads a ClusterConfig; says which field is wrong, where, and what was meant.
pub(crate) fn read_config(path: &Path) -> anyhow::Result<ClusterConfig> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    parse_config(&text).with_context(|| format!("loading config file {:?}", path.display().to_string()))
}

fn parse_config(text: &str) -> anyhow::Result<ClusterConfig> {
    let config: ClusterConfig = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        match meant(&text) {
            Some(name) => anyhow::anyhow!("{text}\nhint: did you mean {name:?}?"),
            None => anyhow::anyhow!("{text}"),
        }
    })?;
    let problems = config.check();
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        bail!("the configuration is not valid:\n{}", lines.join("\n"));
    }
    Ok(config)
}

/// The known field that an unknown one is nearest to, from the error's own list.
fn meant(error: &str) -> Option<String> {
    let rest = error.split("unknown field `").nth(1)?;
    let (unknown, expected) = rest.split_once('`')?;
    let line = expected.lines().next()?.trim_start_matches(", expected ").trim_start_matches("one of ");
    let known =
        line.split([',', ' ']).map(|name| name.trim_matches('`')).filter(|name| !name.is_empty() && *name != "or");
    let nearest = known.min_by_key(|name| distance(unknown, name))?;
    (distance(unknown, nearest) <= unknown.len() / 2 + 1).then(|| nearest.to_owned())
}

/// Edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Creates a cluster: all checks first, then its files, then its server.
pub(crate) async fn cluster(places: &Places, args: ClusterArgs) -> anyhow::Result<()> {
    require_root()?;
    let config = match &args.config_file {
        Some(path) => read_config(path)?,
        None => from_flags(&args)?,
    };
    let name = config.metadata.name.clone();
    let cluster = places.cluster(&name);
    if cluster.exists() {
        bail!(
            "cluster {name:?} exists already\nhint: isopod get cluster {name}, or isopod start cluster --name {name}"
        );
    }
    info(format!("isopod {}", env!("CARGO_PKG_VERSION")));
    info(format!("creating cluster {name:?} in region {:?}", config.metadata.region));
    doctor::require(places).await?;
    let file = settle(&cluster, config, &args).await?;
    if let Err(error) = begin(&cluster, &file).await {
        warn("the cluster did not start; removing what was made of it");
        delete::remove(&cluster, &file).await?;
        return Err(error);
    }
    await_nodes(&cluster, &file).await?;
    finish(&cluster, &file, args.kubeconfig)
}

/// Waits for the nodes of the file's groups.
async fn await_nodes(cluster: &Cluster, file: &ClusterFile) -> anyhow::Result<()> {
    for group in file.config.all_node_groups() {
        nodegroup::wait(&cluster::client(cluster).await?, &group.name).await?;
    }
    Ok(())
}

fn from_flags(args: &ClusterArgs) -> anyhow::Result<ClusterConfig> {
    let name = args
        .name
        .as_deref()
        .context("a name is needed\nhint: isopod create cluster --name demo --fargate, or -f FILE")?;
    let mut config = ClusterConfig::fargate_default(name, &args.region);
    if !args.fargate {
        config.fargate_profiles.clear();
    }
    if let Some(problem) = config.check().first() {
        bail!("{problem}");
    }
    Ok(config)
}

/// Decides what the configuration leaves open.
async fn settle(cluster: &Cluster, config: ClusterConfig, args: &ClusterArgs) -> anyhow::Result<ClusterFile> {
    let listen = SocketAddr::new(args.address, choose_port(args.address, args.port)?);
    let candidates: Vec<Ipv4Net> = match config.vpc.cidr {
        Some(cidr) => vec![cidr],
        None => VPC_CIDRS.iter().filter_map(|text| text.parse().ok()).collect(),
    };
    let free = isopod_net::free_cidr(&candidates).await?;
    let vpc_cidr = free.with_context(|| {
        let all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        format!("this host has routes into {}\nhint: give the pods another network with vpc.cidr", all.join(", "))
    })?;
    if Some(vpc_cidr) != candidates.first().copied() {
        warn(format!("{} is in use on this host; pods get addresses from {vpc_cidr}", candidates[0]));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let service_cidr = SERVICE_CIDR.parse()?;
    let file = ClusterFile { config, listen, vpc_cidr, service_cidr, host, created: Timestamp::now() };
    for subnet in server::subnets(vpc_cidr, &file.config.metadata.region, &cluster.name) {
        info(format!("subnet {} for {} - private:{}", subnet.id, subnet.zone, subnet.cidr));
    }
    Ok(file)
}

/// The port asked for, or the first free one.
fn choose_port(address: IpAddr, wanted: Option<u16>) -> anyhow::Result<u16> {
    let free = |port: u16| {
        TcpListener::bind((address, port)).is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    match wanted {
        Some(port) if free(port) => Ok(port),
        Some(port) => bail!("port {port} is in use\nhint: choose another with --port, or leave it out"),
        None => (PORT..PORT + PORTS_TRIED)
            .find(|port| free(*port))
            .context("no port from 6443 on is free\nhint: choose one with --port"),
    }
}

async fn begin(cluster: &Cluster, file: &ClusterFile) -> anyhow::Result<()> {
    cluster.write(file)?;
    spawn(cluster)?;
    let client = cluster::client(cluster).await?;
    client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
    for profile in &file.config.fargate_profiles {
        done(format!("created Fargate profile {:?} on cluster {:?}", profile.name, cluster.name));
    }
    Ok(())
}

fn finish(cluster: &Cluster, file: &ClusterFile, kubeconfig: Option<PathBuf>) -> anyhow::Result<()> {
    let path = kubeconfig.unwrap_or_else(kubeconfig::user_file);
    kubeconfig::merge(&path, &std::fs::read_to_string(cluster.admin_kubeconfig())?)?;
    done(format!("saved kubeconfig as {:?}", path.display().to_string()));
    let region = &file.config.metadata.region;
    info(format!("kubectl uses context {:?}; try 'kubectl get nodes'", context_name(&cluster.name, region)));
    done(format!("cluster {:?} in {region:?} region is ready", cluster.name));
    Ok(())
}

/// Starts a cluster's server in the background, in a session of its own, and waits until it is ready.
pub(crate) fn spawn(cluster: &Cluster) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let log = std::fs::File::options().create(true).append(true).open(cluster.log())?;
    let state_dir = cluster.cache.parent().context("state directory")?;
    let run_dir = cluster.run.parent().context("run directory")?;
    let mut command = Command::new(program);
    command.arg("--state-dir").arg(state_dir).arg("--run-dir").arg(run_dir);
    command.args(["server", "--name", &cluster.name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/").process_group(0);
    let mut child = command.spawn().context("the server could not be started")?;
    let output = child.stdout.take().context("the server's output")?;
    let ready = BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "ready");
    if ready {
        return Ok(());
    }
    let status = child.wait()?;
    bail!("the server ended ({status}): {}\nhint: see {}", last_words(&cluster.log()), cluster.log().display())
}

/// What the server said last.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.rfind("error: ").unwrap_or_else(|| text.trim_end().rfind('\n').map_or(0, |at| at + 1));
    text[from..].trim().trim_start_matches("error: ").to_owned()
}

/// Starts a cluster's server again.
pub(crate) async fn start(places: &Places, name: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = places.find(&ClusterName { cluster: Some(name.to_owned()) })?;
    if let Some(pid) = cluster.server() {
        // One that was killed a moment ago may still be ending.
        if !delete::ends_within(pid, ENDING).await? {
            info(format!("cluster {name:?} is running already; nothing to do"));
            return Ok(());
        }
    }
    doctor::require(places).await?;
    spawn(&cluster)?;
    done(format!("cluster {name:?} is running"));
    Ok(())
}

/// Creates a Fargate profile.
pub(crate) async fn profile(places: &Places, args: ProfileArgs) -> anyhow::Result<()> {
    let cluster = places.find(&args.cluster)?;
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("--labels {text:?}: write KEY=VALUE"))?;
        anyhow::Ok((key.to_owned(), value.to_owned()))
    };
    let labels = args.labels.iter().map(pair).collect::<anyhow::Result<_>>()?;
    let selectors = vec![ProfileSelector { namespace: args.namespace, labels }];
    let config = ProfileConfig { name: args.name, selectors, ..ProfileConfig::default() };
    ensure!(!config.name.starts_with("eks-"), "the name of a Fargate profile may not start with \"eks-\"");
    let object = server::profile_object(&config.name, &FargateProfileSpec::from(&config));
    if server::create(&cluster::client(&cluster).await?, "fargateprofiles", &object).await? {
        done(format!("created Fargate profile {:?} on cluster {:?}", config.name, cluster.name));
    } else {
        info(format!("Fargate profile {:?} already exists on cluster {:?}", config.name, cluster.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let error = format!("{:#}", parse_config(text).unwrap_err());
        for part in expected {
            assert!(error.contains(part), "{error}");
        }
    }

    const HEAD: &str = "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata:\n  name: a\n  region: r\n";

    #[test]
    fn the_seeds_file_is_read() {
        let text = format!(
            "{HEAD}  version: \"1.29\"\nfargateProfiles:\n  - name: fp\n    selectors:\n      - namespace: production\n      - namespace: production\n        labels:\n          tier: backend\niam:\n  withOIDC: true\nvpc:\n  nat:\n    gateway: HighlyAvailable\n"
        );
        let config = parse_config(&text).unwrap();
        assert_eq!(config.fargate_profiles[0].selectors[1].labels["tier"], "backend");
        assert_eq!(config.metadata.version.as_deref(), Some("1.29"));
    }

    #[test]
    fn mistakes_are_named_with_place_and_cure() {
        check(
            &format!("{HEAD}fargateProfile:\n  - name: fp\n"),
            &["fargateProfile", "did you mean \"fargateProfiles\""],
        );
        check(&format!("{HEAD}fargateProfiles:\n  - nam: fp\n"), &["nam", "did you mean \"name\"", "7"]);
        check(
            &format!("{HEAD}fargateProfiles:\n  - name: fp\n"),
            &["fargateProfiles[0].selectors", "no profile selector"],
        );
        check("kind: ClusterConfig\n", &["apiVersion"]);
    }

    #[test]
    fn words_have_distances() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("nam", "name", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected);
        }
    }
}
