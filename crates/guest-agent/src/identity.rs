//! What makes a guest somebody: clock, entropy, host name, network, writable disk. A machine takes one on once, for the pod
//! that has it to itself or for the node that many pods share.
#![expect(unsafe_code, reason = "adding entropy is an ioctl with a C structure")]

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
};

use isopod_guest_api::{NetworkConfig, NodeConfig, PodConfig};

use crate::{disk, fault::Fault, network};

/// Bytes of entropy that are taken at most.
const ENTROPY_BYTES: usize = 512;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG` (linux/random.h).
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
const RESEED: libc::Ioctl = 0x5207;

/// Who a machine becomes.
pub(crate) struct Identity<'a> {
    hostname: &'a str,
    realtime_unix_nanos: i64,
    entropy: &'a [u8],
    network: Option<&'a NetworkConfig>,
    scratch_slot: Option<u32>,
}

impl<'a> From<&'a PodConfig> for Identity<'a> {
    fn from(config: &'a PodConfig) -> Self {
        Self {
            hostname: &config.hostname,
            realtime_unix_nanos: config.realtime_unix_nanos,
            entropy: &config.entropy,
            network: config.network.as_ref(),
            scratch_slot: config.scratch_slot,
        }
    }
}

impl<'a> From<&'a NodeConfig> for Identity<'a> {
    fn from(config: &'a NodeConfig) -> Self {
        Self {
            hostname: &config.hostname,
            realtime_unix_nanos: config.realtime_unix_nanos,
            entropy: &config.entropy,
            network: config.network.as_ref(),
            scratch_slot: config.scratch_slot,
        }
    }
}

impl Identity<'_> {
    /// Makes the machine this one. After an error it can only be thrown away.
    pub(crate) fn assume(&self) -> Result<(), Fault> {
        set_clock(self.realtime_unix_nanos)?;
        add_entropy(self.entropy).map_err(Fault::internal("entropy"))?;
        rustix::system::sethostname(self.hostname.as_bytes())
            .map_err(|error| Fault::invalid(format!("hostname {:?}: {error}", self.hostname)))?;
        if let Some(network) = self.network {
            network::configure(network)?;
        }
        disk::mount_scratch(self.scratch_slot)
    }
}

fn set_clock(unix_nanos: i64) -> Result<(), Fault> {
    if unix_nanos == 0 {
        return Ok(());
    }
    let time = rustix::time::Timespec {
        tv_sec: unix_nanos.div_euclid(1_000_000_000),
        tv_nsec: unix_nanos.rem_euclid(1_000_000_000),
    };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)
        .map_err(|error| Fault::invalid(format!("realtime_unix_nanos {unix_nanos}: {error}")))
}

/// Gives the kernel's generator bytes that no other clone of the template has, and makes it use them now.
fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: libc::c_int,
        length: libc::c_int,
        bytes: [u8; ENTROPY_BYTES],
    }
    let length = bytes.len().min(ENTROPY_BYTES);
    if length == 0 {
        return Ok(());
    }
    let count = i32::try_from(length).map_err(io::Error::other)?;
    let mut pool = PoolInfo { entropy_bits: count * 8, length: count, bytes: [0; ENTROPY_BYTES] };
    pool.bytes[..length].copy_from_slice(&bytes[..length]);
    let device = fs::File::options().write(true).open("/dev/urandom")?;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info`, which `PoolInfo` has the layout of, and `length` bytes behind it.
    // RNDRESEEDCRNG takes no argument.
    let done = unsafe { libc::ioctl(fd, ADD_ENTROPY, std::ptr::from_ref(&pool)) == 0 && libc::ioctl(fd, RESEED) == 0 };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
