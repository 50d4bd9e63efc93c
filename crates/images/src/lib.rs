//! Images: pull from an OCI registry or import from an archive, verify, flatten to one read-only ext4 disk, keep.
//!
//! Registries and archives are hostile. Nothing of an image is ever unpacked into the host's file system: layers are
//! read as streams, merged as a tree in memory, and written into the disk image. Every size has a limit.
//!
//! Called by the host agent and by `isopod image`. It never starts anything and knows nothing of Kubernetes.

mod archive;
mod blob;
mod disk;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod layer;
mod record;
mod registry;
mod store;
mod tree;

pub use error::{ImageError, Kind};
pub use record::{Image, ImageConfig, Origin};
pub use registry::Credentials;
pub use store::{ImageStore, Limits, Options, Policy};
