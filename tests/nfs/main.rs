//! The driver `nfs`, on a kernel that has an NFS server and client.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod in_guest;
