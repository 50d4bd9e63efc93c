//! (in progress) volumes
