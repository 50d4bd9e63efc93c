//! The API as clients see it, through the in-process door: requests and what must come back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod addresses;
mod admission;
mod applying;
#[path = "../../../schema/tests/suite/arbitrary.rs"]
mod arbitrary;
mod audit;
mod bad_input;
mod behaviours;
mod customs;
mod deletion;
mod harness;
mod listing;
mod metrics;
mod node_rights;
mod policies;
mod protobuf;
mod reading;
mod refusals;
mod running_pods;
mod settling;
mod signing;
mod subresources;
mod watching;
mod writing;
