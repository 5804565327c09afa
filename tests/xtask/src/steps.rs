//! The steps of `cargo xtask test`, in their order.

mod cargo_test;
mod deny;
mod go;
mod packages;
mod rust;
pub(crate) mod vm;

use anyhow::Result;

use crate::session::Session;
use crate::summary::Outcome;
use crate::{matrix, public_api};

/// One part of the whole, with a line of its own in the summary.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Session) -> Result<Outcome>,
}

/// Clippy comes before doc and test, since both use the crates it has checked; whatever only downloads comes first.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "packages", about: "install the system's programs that the tests start", run: packages::install },
    Step { name: "csi-sanity", about: "build csi-sanity with Go", run: go::build_csi_sanity },
    Step { name: "fmt", about: "check the formatting", run: rust::fmt },
    Step { name: "clippy", about: "lint every target, warnings denied", run: rust::clippy },
    Step { name: "doc", about: "build the documentation, warnings denied", run: rust::doc },
    Step { name: "deny", about: "check licences, sources and duplicates of dependencies", run: deny::check },
    Step {
        name: "public-api",
        about: "compare the public API of drivers/api with its listing",
        run: |session| public_api::check(&session.root).map(|()| Outcome::passed()),
    },
    Step { name: "test", about: "run every test, as root", run: cargo_test::run },
    Step { name: "vm", about: "run the tests that need a stock kernel, in a guest", run: vm::run },
    Step { name: "matrix", about: "compare docs/matrix.md with the tests that are there and ran", run: matrix::check },
    Step { name: "size", about: "build the release and print its size", run: rust::size },
];
