//! Every decision of Isopod, as pure functions: objects and a time in, writes and reasons out.
//!
//! The shells (API server, controllers, host agent) call these functions and carry out what they return. Nothing here
//! reads a clock, a file or a socket, so every rule is a table of cases in a test.

pub mod addresses;
pub mod admission;
pub mod amounts;
pub mod autoscaling;
mod claims;
pub mod cron;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod environment;
pub mod events;
pub mod fargate;
pub mod garbage;
pub mod hosts;
pub mod job;
pub mod namespaces;
pub mod node_lifecycle;
pub mod nodegroups;
pub mod persistent_volumes;
pub mod plan;
pub mod pod;
pub mod pod_gc;
pub mod profiles;
pub mod quota;
mod recent;
pub mod refusals;
pub mod replicaset;
pub mod revisions;
pub mod roles;
pub mod scheduler;
pub mod sizing;
pub mod statefulset;
pub mod sysctls;
pub mod taint_eviction;
mod template;
pub mod tokens;
pub mod usage;
pub mod volumes;

pub use plan::{EventType, Plan, Reason, Target, Write};
