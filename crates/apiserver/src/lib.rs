//! The Kubernetes API of a cluster: one generic pipeline over the schema table and the embedded store.
//!
//! Whoever wants something, over the network or from inside the process, goes through [`pipeline`]: identity, limits,
//! permission, admission, validation, store. Kinds are rows of `isopod_schema::Table`; there is no handler per kind.
//! Nothing here decides what should run or where; that is the controllers' and the planner's.

mod addresses;
mod admission;
mod aggregation;
mod applying;
mod audit;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod codec;
mod compress;
mod config;
mod context;
mod conversion;
mod convert;
mod create;
mod customs;
mod delete;
mod deletion;
mod discovery;
mod door;
mod edit;
mod encoded;
mod encryption;
mod escalation;
mod eviction;
mod fair;
mod follow;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod kubelets;
mod listen;
mod metrics;
mod negotiate;
mod node_rights;
mod oidc;
mod options;
mod ownership;
mod pipeline;
mod pki;
mod proxy;
mod query;
mod rbac;
mod read;
mod respond;
mod reviews;
mod route;
mod selection;
mod server;
mod signing;
mod strategy;
mod streams;
mod subresource;
mod tokens;
mod upkeep;
mod usage;
mod user;
mod watch;

pub use audit::Audit;
pub use body::{Body, Broken};
pub use config::{Clock, Config, Identities, OpenError};
pub use door::InProcess;
pub use isopod_schema::Status;
pub use kubelets::{
    Duplex, ExecInput, ExecOutput, ExecRequest, ExecSession, Kubelets, LogRequest, NodeUsage, PodUsage,
    PortForwardRequest, Target, Usage,
};
pub use listen::ServeError;
pub use respond::Response;
pub use server::ApiServer;
pub use user::UserInfo;
