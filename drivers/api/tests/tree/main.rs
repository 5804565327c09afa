//! Copies of trees, on the file systems there are.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changing;
mod cut_off;
mod deep;
mod kept;
mod lost;
mod support;
