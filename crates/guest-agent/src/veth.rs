//! A pair of connected interfaces, one end in another network namespace: one netlink request (rtnetlink(7), veth(4)), written
//! out here because a library for it would be larger than the agent.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Message types and flags (linux/rtnetlink.h, linux/netlink.h).
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

/// Attributes (linux/if_link.h, linux/veth.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// `struct ifinfomsg` that says nothing.
const NO_INTERFACE: [u8; 16] = [0; 16];

/// Makes a pair: `name` here, `peer` in the namespace.
pub(crate) fn make(name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    // Protocol 0 is the routing family (NETLINK_ROUTE).
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &request(name, peer, descriptor), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    outcome(&answer[..length])
}

/// The whole request.
fn request(name: &str, peer: &str, namespace: u32) -> Vec<u8> {
    let text = |text: &str| [text.as_bytes(), &[0]].concat();
    let peer = [
        NO_INTERFACE.to_vec(),
        attribute(IFLA_IFNAME, &text(peer)),
        attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes()),
    ];
    let data = attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer.concat()));
    let info = [attribute(IFLA_INFO_KIND, b"veth"), data].concat();
    let body = [NO_INTERFACE.to_vec(), attribute(IFLA_IFNAME, &text(name)), attribute(IFLA_LINKINFO, &info)].concat();
    let mut message = Vec::new();
    message.extend(u32::try_from(body.len() + 16).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).to_ne_bytes());
    message.extend([1_u32, 0].map(u32::to_ne_bytes).concat());
    message.extend(body);
    message
}

/// Length, type, value, and what fills it up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What the kernel's answer says: an error message whose number is 0 is the confirmation.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    let number = answer.get(16..20).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, number) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(number)) => Err(io::Error::from_raw_os_error(-number)),
        _ => Err(io::Error::other("netlink's answer is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let bytes = request("pod7", "eth0", 9);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        assert_eq!(bytes.len() % 4, 0);
        // Header and interface, then the name.
        assert_eq!(&bytes[32..41], [&9_u16.to_ne_bytes(), &3_u16.to_ne_bytes(), b"pod7\0".as_slice()].concat());
        let position = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
        let (kind, peer, namespace) = (position(b"veth"), position(b"eth0\0"), position(&9_u32.to_ne_bytes()));
        assert!(kind < peer && peer < namespace, "{kind:?} {peer:?} {namespace:?}");
    }

    #[test]
    fn answers_are_understood() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = vec![0; 16];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            outcome(&bytes).map_err(|error| error.raw_os_error())
        };
        assert_eq!(answer(NLMSG_ERROR, 0), Ok(()));
        assert_eq!(answer(NLMSG_ERROR, -17), Err(Some(17)));
        assert_eq!(answer(7, 0), Err(None));
        assert!(outcome(&[]).is_err());
    }
}
