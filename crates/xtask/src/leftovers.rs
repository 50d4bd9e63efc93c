//! What a deleted cluster could have left on this machine: processes, interfaces, packet filter tables, files, mounts,
//! control groups. It only looks; it removes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::output;

const STATE_DIR: &str = "/var/lib/isopod";
const RUN_DIR: &str = "/run/isopod";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Fails and says what is left of a cluster.
pub fn check(cluster: &str) -> Result<()> {
    let processes = processes();
    let mut left = of_cluster(cluster, &processes);
    // Names of interfaces and tables do not say whose they are: when another cluster runs, they may be that one's.
    let alone = !processes.iter().any(is_server);
    if alone {
        left.extend(of_all()?);
    }
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    if alone {
        println!("no process, interface, packet filter table, file, mount or control group is left");
    } else {
        println!("no process, file or control group is left; interfaces, tables and mounts were not looked at,");
        println!("because another cluster runs on this machine");
    }
    Ok(())
}

/// A process of this machine.
struct Process {
    id: u32,
    /// Its command line, words parted by spaces.
    command: String,
    /// Control groups it is in, as the kernel lists them.
    groups: String,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |id: u32, file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    ids.map(|id| Process { id, command: read(id, "cmdline").replace('\0', " "), groups: read(id, "cgroup") }).collect()
}

fn is_server(process: &Process) -> bool {
    let mut words = process.command.split(' ');
    let program = words.next().and_then(|program| program.rsplit('/').next());
    program == Some("isopod") && words.any(|word| word == "server")
}

fn belongs(process: &Process, cluster: &str) -> bool {
    let named = |line: &str| line.split('/').any(|part| part == format!("isopod-{cluster}"));
    let places = [format!("{STATE_DIR}/clusters/{cluster}/"), format!("{RUN_DIR}/{cluster}/")];
    process.groups.lines().any(named)
        || places.iter().any(|place| process.command.contains(place))
        || (is_server(process) && process.command.trim_end().ends_with(&format!("server --name {cluster}")))
}

fn of_cluster(cluster: &str, processes: &[Process]) -> Vec<String> {
    let mut left: Vec<String> = processes
        .iter()
        .filter(|process| belongs(process, cluster))
        .map(|process| format!("process {}: {}", process.id, process.command))
        .collect();
    let paths = [format!("{STATE_DIR}/clusters/{cluster}"), format!("{RUN_DIR}/{cluster}")];
    left.extend(existing(paths.iter().map(PathBuf::from)));
    left.extend(existing(cgroups(&format!("isopod-{cluster}"))));
    left
}

fn of_all() -> Result<Vec<String>> {
    let mut left: Vec<String> = existing([STATE_DIR, RUN_DIR].map(PathBuf::from)).collect();
    let links = output(Command::new("ip").args(["-o", "link"]))?;
    left.extend(taps(&links).map(|name| format!("interface {name}")));
    let tables = output(Command::new("nft").args(["list", "tables"]))?;
    left.extend(tables.lines().filter(|line| line.contains(" isopod_")).map(str::to_owned));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    left.extend(mounts_below(&mounts, &[STATE_DIR, RUN_DIR]).map(|path| format!("mount {path}")));
    Ok(left)
}

fn existing(paths: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = String> {
    paths.into_iter().filter(|path| path.exists()).map(|path| path.display().to_string())
}

/// Places of a control group: in the one hierarchy of version 2, or in each of version 1.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path().join(name));
    std::iter::once(Path::new(CGROUPS).join(name)).chain(hierarchies).collect()
}

/// Names of our taps (`ip`, four hexadecimal digits of the cluster, `-`, the pod) in what `ip -o link` lists.
fn taps(links: &str) -> impl Iterator<Item = &str> {
    let names = links.lines().filter_map(|line| line.split_whitespace().nth(1)?.strip_suffix(':'));
    names.filter(|name| {
        let tag = name.strip_prefix("ip").and_then(|rest| rest.split_once('-')).map_or("", |(tag, _)| tag);
        tag.len() == 4 && tag.chars().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Mount points below some directories, from the kernel's list.
fn mounts_below<'a>(mounts: &'a str, directories: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| directories.iter().any(|directory| Path::new(point).starts_with(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_taps_are_told_from_other_interfaces() {
        let links = "1: lo: <LOOPBACK> mtu 65536\n2: ipvlan0: <UP>\n3: ip1a2b-01234567: <UP>\n4: ip6tnl-x@NONE: <UP>\n";
        assert_eq!(taps(links).collect::<Vec<_>>(), ["ip1a2b-01234567"]);
    }

    #[test]
    fn mounts_are_found_by_path() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:5 / /run/isopod/demo rw - tmpfs tmpfs rw\n3 1 0:5 / /run/isopods rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(mounts, &[STATE_DIR, RUN_DIR]).collect::<Vec<_>>(), ["/run/isopod/demo"]);
    }

    #[test]
    fn processes_are_told_apart_by_cluster() {
        let check = |command: &str, groups: &str, expected: (bool, bool)| {
            let process = Process { id: 1, command: command.into(), groups: groups.into() };
            assert_eq!((belongs(&process, "demo"), is_server(&process)), expected, "{command} {groups}");
        };
        check("/x/isopod --state-dir /s server --name demo ", "", (true, true));
        check("/x/isopod --state-dir /s server --name demo2 ", "", (false, true));
        check("/x/isopod create cluster --name demo ", "", (false, false));
        check("qemu -D /run/isopod/demo/vm/1 ", "", (true, false));
        check("qemu ", "4:memory:/isopod-demo/pod\n0::/\n", (true, false));
        check("qemu ", "4:memory:/isopod-demo2/pod\n0::/\n", (false, false));
    }
}
