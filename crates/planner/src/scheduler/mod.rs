//! The default scheduler: which node a pod goes to, and why to none. Pure; what it knows is handed to it.

pub mod affinity;
pub mod taints;
