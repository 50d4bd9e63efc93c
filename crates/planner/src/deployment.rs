//! (in progress) deployment
