//! The driver as a host uses it, on real file systems.
// Clippy sees a test in what bears the attribute alone, and not in the helpers here.
#![allow(clippy::unwrap_used)]

mod attributes;
mod cut_off;
mod formats;
mod lives;
mod mirror;
mod quotas;
mod roots;
mod snapshots;
mod support;
