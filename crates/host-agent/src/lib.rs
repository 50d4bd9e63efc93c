//! The host agent: the kubelet of every microVM on a host.
//!
//! It watches pods bound to its nodes and keeps one actor per pod. An actor asks `isopod_planner::pod` what to do and has it done by
//! the drivers (images, network, microVMs); what happened comes back as facts. It speaks to the Kubernetes API with an
//! identity of its own and to guests over one byte stream each; guests are not trusted.

mod actor;
mod admission;
mod agent;
mod api;
mod convert;
mod deeds;
mod dial;
mod disks;
pub mod drivers;
mod exclusive;
mod follow;
pub mod guest;
mod kept;
mod leases;
mod lodging;
mod logs;
mod node;
pub mod pool;
mod probes;
mod real;
mod report;
pub mod scratch;
mod sources;
mod streams;
mod tokens;
mod usage;
mod worker;

pub use agent::{HostAgent, Settings};
pub use guest::{ExecInput, ExecOutput, ExecSession};
pub use logs::LogOptions;
pub use real::{Real, RealDrivers};
pub use streams::{ContainerRef, Session, StreamError};
pub use usage::{ContainerStats, NodeStats};
