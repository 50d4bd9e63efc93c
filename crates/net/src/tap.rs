//! Making taps: the one thing that netlink cannot do.
#![expect(unsafe_code, reason = "TUNSETIFF and TUNSETPERSIST are ioctls without a safe wrapper")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{self, Opcode, Setter, opcode};

/// Longest interface name, without the final NUL.
const NAME_BYTES_MAX: usize = 15;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);

/// `struct ifreq` with a name and flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

/// Makes a tap that stays until it is deleted, as the VMM opens it: no packet information, with virtio headers.
pub(crate) fn create(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {name:?} is not 1 to {NAME_BYTES_MAX} bytes"),
        ));
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes, which InterfaceRequest is, and keeps no pointer to it.
    unsafe { ioctl::ioctl(device.as_fd(), Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    // SAFETY: TUNSETPERSIST takes a number by value; no memory is passed.
    unsafe { ioctl::ioctl(device.as_fd(), ioctl::IntegerSetter::<TUNSETPERSIST>::new_usize(1))? };
    Ok(())
}
