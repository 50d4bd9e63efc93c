//! (in progress) environment
