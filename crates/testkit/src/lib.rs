//! A whole cluster in one process, without privileges: the real API server on a store in memory, the real controllers, the real host agent,
//! and fake drivers under it. Its nodes say that they are simulated.
//!
//! Only for tests. A container's command is its script: `exit N` ends at once with N, also as a shell's; `crash-when-asked` and everything
//! else runs until it is signalled.

mod cluster;
mod fake;
mod kubelets;
mod simulation;

pub use cluster::TestCluster;
pub use fake::{FakeDrivers, FakeHost};
pub use simulation::{Report, simulate};
