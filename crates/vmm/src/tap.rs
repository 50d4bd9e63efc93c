//! Opens tap devices for QEMU, which itself may not. Devices with a name were made by others and stay; one without a name
//! goes when it is closed.
#![expect(unsafe_code, reason = "attaching to a tap device is an ioctl")]

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    ioctl::{Opcode, Updater, ioctl, opcode},
    net::{AddressFamily, SocketFlags, SocketType},
};

/// Longest interface name in bytes.
pub(crate) const NAME_BYTES: usize = 15;

/// A tap, frames without a prefix, frames with a virtio header (offloads).
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;

/// `TUNSETIFF`: `_IOW('T', 202, int)`.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Attaches to the tap device of this name; an empty name makes one that lives as long as the descriptor.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    if name.len() > NAME_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {name} is longer than {NAME_BYTES} bytes"),
        ));
    }
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    const { assert!(size_of::<InterfaceRequest>() == 40, "struct ifreq of x86-64 and aarch64") };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `InterfaceRequest` has the layout of and which lives
    // until the call returns.
    unsafe { ioctl(&device, Updater::<TUNSETIFF, _>::new(&mut request))? };
    rustix::io::ioctl_fionbio(&device, true)?;
    Ok(device.into())
}

/// Whether an interface of this name exists, so that a typing error does not make a new one. Asked of the kernel and not of
/// `/sys`, which may show another network namespace.
pub(crate) fn exists(name: &str) -> bool {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, name).is_ok())
}
