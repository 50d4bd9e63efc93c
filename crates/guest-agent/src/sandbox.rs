//! The namespaces that the containers of one pod share on a node of many: network, host name, inter-process communication.
//! The agent has one thread, so it makes them by stepping into new ones and back; nothing else runs meanwhile.
#![expect(unsafe_code, reason = "unsharing namespaces has no safe form")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use isopod_guest_api::{ErrorKind, PodConfig};
use rustix::{
    fs::{Mode, OFlags},
    thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces},
};

use crate::{fault::Fault, network, veth};

/// Numbers interfaces: their names are as long as the kernel's, and never come again.
static INTERFACES: AtomicU64 = AtomicU64::new(0);

/// The pod's end of its link.
const INTERFACE: &str = "eth0";

/// A pod's namespaces; they last as long as this or a process in them.
#[derive(Debug)]
pub(crate) struct Sandbox {
    namespaces: Vec<OwnedFd>,
}

fn open(kind: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("/proc/self/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn join(namespaces: &[OwnedFd]) -> io::Result<()> {
    for namespace in namespaces {
        move_into_thread_name_spaces(namespace.as_fd(), ThreadNameSpaceType::empty())?;
    }
    Ok(())
}

fn all(kinds: &[&str]) -> io::Result<Vec<OwnedFd>> {
    kinds.iter().map(|kind| open(kind)).collect()
}

/// Does something elsewhere and comes back.
fn away<T>(kinds: &[&str], go: impl FnOnce() -> io::Result<()>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = all(kinds)?;
    let result = go().and_then(|()| act());
    join(&home)?;
    result
}

impl Sandbox {
    /// Makes the namespaces of a pod and connects them.
    pub(crate) fn make(config: &PodConfig) -> Result<Self, Fault> {
        let failed = |what: &'static str| Fault::io(ErrorKind::NetworkFailed, format!("the pod's {what}"));
        let (kinds, new): (&[&str], UnshareFlags) = if config.host_network {
            (&["ipc"], UnshareFlags::NEWIPC)
        } else {
            (&["net", "uts", "ipc"], UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC)
        };
        // SAFETY: of the namespaces, only that of descriptors (CLONE_FILES) bears on what safe code may assume.
        let unshare = || unsafe { rustix::thread::unshare_unsafe(new) }.map_err(io::Error::from);
        let namespaces = away(kinds, unshare, || {
            if !config.host_network {
                rustix::system::sethostname(config.hostname.as_bytes())?;
                network::loopback_up()?;
                network::without_ipv6("all")?;
            }
            all(kinds)
        });
        let sandbox = Self { namespaces: namespaces.map_err(failed("namespaces"))? };
        if !config.host_network {
            sandbox.connect(config)?;
        }
        Ok(sandbox)
    }

    /// A link between the node and the pod, whose traffic the node passes on.
    fn connect(&self, config: &PodConfig) -> Result<(), Fault> {
        let Some(network) = &config.network else { return Ok(()) };
        let failed = || Fault::io(ErrorKind::NetworkFailed, "the pod's link");
        let name = format!("pod{}", INTERFACES.fetch_add(1, Ordering::Relaxed));
        veth::make(&name, INTERFACE, self.namespaces[0].as_fd()).map_err(failed())?;
        self.within(|| network::configure_interface(INTERFACE, network))??;
        network::lead(&name, network).map_err(failed())
    }

    /// Does something in the pod's namespaces.
    pub(crate) fn within<T>(&self, act: impl FnOnce() -> T) -> Result<T, Fault> {
        let kinds: &[&str] = if self.namespaces.len() == 1 { &["ipc"] } else { &["net", "uts", "ipc"] };
        away(kinds, || self.enter(), || Ok(act())).map_err(Fault::internal("the pod's namespaces"))
    }

    /// In a copy of this process: goes into the pod's namespaces for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        join(&self.namespaces)
    }
}
