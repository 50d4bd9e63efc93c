//! Isopod: host-agent.

pub mod guest;
