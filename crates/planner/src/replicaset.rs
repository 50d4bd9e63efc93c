//! (in progress) replicaset
