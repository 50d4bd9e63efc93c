//! The network door with real clients: TLS, kubectl, WebSocket and SPDY streams against a fake node agent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod aggregation;
mod client;
mod clients;
mod commands;
mod conversion;
mod customs;
mod garbage;
mod hooks;
mod kubectl;
mod node;
mod oidc;
mod protobuf;
mod proxy;
mod rollouts;
mod serving;
mod site;
mod slow;
mod streams;
mod usage;
mod websockets;
