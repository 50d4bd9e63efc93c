//! The words of Isopod: names, quantities, the parts of Kubernetes objects that decisions read, and our own kinds.
//!
//! Everybody uses this crate; it uses nobody. The Kubernetes types here are *views*: they hold the fields that
//! some decision reads and ignore the rest, so an object is never written back from one of them. Writes are JSON
//! documents or patches.

pub mod autoscaling;
pub mod batch;
pub mod cluster_config;
pub mod daemonset;
pub mod disruption;
pub mod instances;
pub mod lease;
pub mod meta;
pub mod names;
pub mod network;
pub mod node;
pub mod own;
pub mod pod;
pub mod probe;
pub mod quantity;
pub mod rbac;
pub mod scheduling;
pub mod selectors;
pub mod statefulset;
pub mod storage;
pub mod workload;

pub use meta::{Key, Object, ObjectMeta, OwnerReference};
pub use quantity::Quantity;
