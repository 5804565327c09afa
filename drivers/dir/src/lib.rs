//! Volumes that are directories below a root.
