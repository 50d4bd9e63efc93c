//! (in progress) usage
