//! The guest agent: PID 1 of a microVM. It boots the guest, then serves one host over one byte stream: it makes the guest
//! a pod's, starts containers, and tells what becomes of them. It holds no credential, knows nothing of Kubernetes, and
//! never speaks first.

mod agent;
mod boot;
mod calls;
mod child;
mod container;
mod create;
mod disk;
mod events;
mod fault;
mod fd;
mod fork;
mod host_path;
mod identity;
mod logs;
mod name_service;
mod network;
mod path;
mod plan;
mod pod;
mod port;
mod reaper;
mod relay;
mod report;
mod root;
mod sandbox;
mod seccomp;
mod serve;
mod session;
mod signal;
mod start;
mod stats;
mod sysctl;
mod tenants;
mod users;
mod veth;
mod volume;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Also what a machine that waits for its pod runs in a container, to have been through it once.
    if std::env::args().nth(1).is_some_and(|argument| argument == "--version") {
        println!("isopod-guest-agent {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if std::process::id() != 1 {
        eprintln!("isopod-guest-agent is PID 1 of a microVM and nothing else");
        return ExitCode::FAILURE;
    }
    let error = boot::boot().and_then(serve::run);
    // PID 1 must not return: the machine goes down, and its console says why.
    boot::say(&format!("guest agent: {}", error.map_or_else(|error| error.to_string(), |never| match never {})));
    boot::restart_machine()
}
