//! MicroVMs: start, watch, save, restore and end one jailed QEMU machine, from a Debian cloud kernel and a guest agent that
//! is handed in. Called by the host agent.
//!
//! It knows nothing of pods, images or the agent's protocol: disks, addresses and identity are given to a machine after it
//! started, so that all machines of one size can come from one template. A machine outlives the process that started it;
//! `Vmm::adopt` finds it again.

mod accelerator;
mod arguments;
mod assets;
mod cgroup;
mod console;
mod directory;
pub mod initramfs;
pub mod kernel;
mod launch;
mod machine;
mod probe;
mod process;
mod qemu;
mod qmp;
mod tap;
mod template;
mod vmm;

pub use accelerator::Accelerator;
pub use arguments::{
    AGENT_PORT, NODE_READ_ONLY_SLOTS, NODE_WRITABLE_SLOTS, PLACEHOLDER_BYTES, READ_ONLY_SLOTS, Role, SCRATCH_SLOT,
};
pub use assets::AssetError;
pub use launch::LaunchError;
pub use machine::{Machine, MachineError, StartPath};
pub use probe::{Capabilities, probe};
pub use process::{ExitFact, User};
pub use qemu::QemuError;
pub use qmp::QmpError;
pub use template::TemplateError;
pub use vmm::{GuestAgent, MEMORY_MIN_BYTES, MachineSpec, OpenError, Options, PrepareError, VCPU_MAX, Vmm};
