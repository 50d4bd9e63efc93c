//! (in progress) pod
