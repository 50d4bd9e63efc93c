//! Use of resources, from the kernel's own files.

use std::{fs, path::Path};

use isopod_guest_api::{ContainerStats, StatsResponse};

use crate::{agent::now, path};

/// Nanoseconds of one tick of `/proc/stat`, which counts hundredths of a second on every Linux.
const TICK_NANOS: u64 = 10_000_000;

/// The machine's, and that of these containers.
pub(crate) fn read(containers: &[String]) -> StatsResponse {
    let memory = text(Path::new("/proc/meminfo"));
    StatsResponse {
        unix_nanos: now(),
        cpu_usage_nanos: busy_ticks(&text(Path::new("/proc/stat"))) * TICK_NANOS,
        memory_total_bytes: value(&memory, "MemTotal:") * 1024,
        memory_available_bytes: value(&memory, "MemAvailable:") * 1024,
        containers: containers.iter().map(|id| container(id)).collect(),
    }
}

fn container(id: &str) -> ContainerStats {
    let group = path::cgroup(id);
    let number = |file: &str| text(&group.join(file)).trim().parse().unwrap_or(0_u64);
    let usage = number("memory.current");
    let inactive = value(&text(&group.join("memory.stat")), "inactive_file");
    ContainerStats {
        id: id.to_owned(),
        cpu_usage_nanos: value(&text(&group.join("cpu.stat")), "usage_usec") * 1000,
        memory_working_set_bytes: usage.saturating_sub(inactive),
        memory_usage_bytes: usage,
        pids: number("pids.current"),
    }
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The number behind a key at the start of a line.
fn value(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// All ticks of all processors but idle ones and those spent waiting for disks.
fn busy_ticks(stat: &str) -> u64 {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else { return 0 };
    let ticks = line.split_whitespace().skip(1).take(8).enumerate();
    ticks
        .filter(|(position, _)| *position != 3 && *position != 4)
        .filter_map(|(_, word)| word.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(busy_ticks("cpu  1 2 3 1000 500 4 5 6 7 8\ncpu0 9 9"), 21);
        assert_eq!(value("MemTotal:  2048 kB\nMemFree: 1 kB", "MemTotal:"), 2048);
        assert_eq!(value("inactive_file_x 3\ninactive_file 4096", "inactive_file"), 4096);
        assert_eq!(value("", "x"), 0);
    }
}
