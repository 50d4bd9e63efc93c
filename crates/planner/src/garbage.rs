//! (in progress) garbage
