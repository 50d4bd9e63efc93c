//! SPDY/3.1, as far as Kubernetes' clients speak it: what kubectl uses for port-forward, and older ones for exec.
//!
//! [`frame`] and [`headers`] turn bytes into frames and back, [`session`] runs a connection in the server's role. Peers
//! of Kubernetes ignore SPDY's flow-control windows, so a slow stream is held back by not reading the connection; all
//! queues are bounded.

pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod session;

pub(crate) use session::{Session, Stream};
