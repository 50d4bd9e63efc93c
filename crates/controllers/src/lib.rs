//! The controllers of an Isopod cluster: one loop driver over the pure planner.
//!
//! Watches fill a cache; a change names the keys whose plans may have changed; plans are decided by `isopod_planner` from the
//! cache alone; their writes go to the Kubernetes API under this component's own identity. What the API answers to a
//! write enters the cache before the next decision about that key, so a plan always sees its own writes.
//!
//! One task owns cache and queue. Only it decides; writes run beside it and report back.

mod announce;
mod cache;
mod core;
mod document;
mod driver;
mod execute;
mod gone;
mod graph;
mod labelled;
mod loops;
mod placed;
mod queue;
mod request;
mod stepped;
mod watches;

pub use driver::{Settings, run};
pub use execute::Clock;
pub use stepped::{Begun, Change, Done, Kinds, Stepped, Watch};
