//! The guest agent in a real microVM: QEMU, a cloud kernel, an image disk made of busybox, the host agent's own client. Needs
//! root, QEMU, e2fsprogs and busybox-static, and the agent built for guests (`ISOPOD_GUEST_AGENT`, or where `cargo xtask
//! guest` puts it); says loudly what is missing.
#![cfg(test)]

mod guest;
mod life;
mod measure;
mod network;
mod node;
mod pool;
mod support;
mod sysctls;
