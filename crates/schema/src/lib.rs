//! The schema table of the Kubernetes API and the pure machinery over it: decoding, defaults, validation, patches,
//! selectors, printed tables, protobuf, discovery and OpenAPI.
//!
//! Works on JSON documents and the table, never on typed structs, and never does I/O, reads a clock or draws a random
//! number: bytes, times and random bytes are arguments.

pub mod admission;
pub mod apply;
pub mod authentication;
mod cel;
pub mod crd;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod facts;
pub mod fields;
pub mod names;
pub mod openapi;
pub mod partial;
pub mod patch;
pub mod protobuf;
pub mod qos;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod table;
pub mod tables;
pub mod validate;
pub mod warnings;

mod walk;

pub use decode::{DecodeError, Decoded, FieldProblem};
pub use facts::{Shape, Type, TypeId, TypeRef, TypeSet};
pub use status::{Reason, Status};
pub use table::{Gvk, Kind, Table, Verb};
pub use validate::FieldError;
