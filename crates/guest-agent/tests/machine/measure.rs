//! How long it takes from nothing to a started container, by the path taken. Not a test: run it by name,
//! `cargo nextest run -p isopod-guest-agent --test machine --run-ignored only --no-capture`; `ROUNDS` says how often.

use std::time::{Duration, Instant};

use isopod_vmm::MachineSpec;

use crate::support::{self, Lab, container};

/// Processor time that a machine's QEMU has used.
fn cpu(machine: &isopod_vmm::Machine) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", machine.pid())).unwrap();
    let ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.map(|field| field.parse::<u64>().unwrap() * 10).sum())
}

/// Time since the start at each point of one round.
type Points = Vec<(&'static str, Duration)>;

/// How a machine is had.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Booted,
    Restored,
    /// Restored earlier and paused.
    Paused,
    /// Restored earlier, taken through a pod's start once, and paused.
    Rehearsed,
}

/// Takes a machine through a pod's start, and back.
async fn rehearse(lab: &Lab, machine: &isopod_vmm::Machine) {
    machine.attach_disk(0, &lab.disk, true).await.unwrap();
    let client = support::client(machine).await;
    client.configure_pod(support::pod("rehearsal")).await.unwrap();
    let mut events = client.events(0).await.unwrap();
    client.start_container(container("rehearsal", "true")).await.unwrap();
    support::exit(&mut events, "rehearsal").await;
    client.reset().await.unwrap();
    machine.detach_disk(0).await.unwrap();
    drop((events, client));
    machine.pause().await.unwrap();
}

async fn round(lab: &Lab, id: &str, how: How) -> Points {
    let mut points = Points::new();
    let (mut start, mut used) = (Instant::now(), Duration::ZERO);
    let machine = lab.vmm().prepare(MachineSpec { paused: how == How::Paused, ..lab.spec(id, 256) }).await.unwrap();
    if how == How::Rehearsed {
        rehearse(lab, &machine).await;
    }
    points.push(("prepared", start.elapsed()));
    if how == How::Paused || how == How::Rehearsed {
        // It waits; the clock starts when it is claimed.
        (start, used) = (Instant::now(), cpu(&machine));
        machine.claim("pod").unwrap();
        machine.resume().await.unwrap();
        points.push(("resumed", start.elapsed()));
    }
    machine.attach_disk(0, &lab.disk, true).await.unwrap();
    points.push(("disk", start.elapsed()));
    let client = support::client(&machine).await;
    points.push(("hello", start.elapsed()));
    client.configure_pod(support::pod("pod-1")).await.unwrap();
    points.push(("configured", start.elapsed()));
    client.start_container(container("c1", "exec sleep 1000")).await.unwrap();
    points.push(("started", start.elapsed()));
    points.push(("cpu till then", cpu(&machine) - used));
    client.start_container(container("c2", "exec sleep 1000")).await.unwrap();
    points.push(("second", start.elapsed()));
    machine.destroy().await.unwrap();
    points.push(("destroyed", start.elapsed()));
    points
}

fn report(path: &str, rounds: &[Points]) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{path}: n={}, load {}", rounds.len(), load.split(' ').next().unwrap_or_default());
    for (position, (name, _)) in rounds[0].iter().enumerate() {
        let mut times: Vec<Duration> = rounds.iter().map(|points| points[position].1).collect();
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_millis();
        println!("  {name:>14}: p50 {:>5} ms, p99 {:>5} ms, min {:>5} ms", at(50), at(99), times[0].as_millis());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn from_nothing_to_a_started_container() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    for how in [How::Booted, How::Restored, How::Paused, How::Rehearsed] {
        let templates = how != How::Booted;
        let Some(lab) = Lab::open(templates).await else { return };
        if templates {
            assert!(lab.vmm().warm(1, 256 << 20, false).await);
        }
        let mut all = Vec::new();
        for number in 0..rounds {
            all.push(round(&lab, &format!("measure-{number}"), how).await);
        }
        report(&format!("{how:?}"), &all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn many_at_once() {
    let count: usize = std::env::var("COUNT").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let Some(lab) = Lab::open(true).await else { return };
    assert!(lab.vmm().warm(1, 256 << 20, false).await);
    let start = Instant::now();
    let starts = (0..count).map(|number| {
        let lab = &lab;
        async move {
            let machine = lab.machine(&format!("burst-{number}"), 256).await;
            let client = support::client(&machine).await;
            client.configure_pod(support::pod("pod-1")).await.unwrap();
            client.start_container(container("c1", "exec sleep 1000")).await.unwrap();
            (machine, start.elapsed())
        }
    });
    let started = futures::future::join_all(starts).await;
    let mut times: Vec<u128> = started.iter().map(|(_, time)| time.as_millis()).collect();
    times.sort_unstable();
    println!("{count} at once: first {} ms, half {} ms, all {} ms", times[0], times[count / 2], times[count - 1]);
    for (machine, _) in started {
        assert_eq!(machine.path(), isopod_vmm::StartPath::Restored);
        machine.destroy().await.unwrap();
    }
}
