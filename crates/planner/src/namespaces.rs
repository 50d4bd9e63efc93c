//! (in progress) namespaces
