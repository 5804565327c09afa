//! The table of running operations, and the threads they run on.
//!
//! What changes something goes through [`Operations`]: it runs as a task of its own that neither the client's
//! disconnect nor its deadline ends, and holds what it touches until it has really ended: see [`Keys`]. What may block in the kernel
//! runs on the [`Workers`] of its backend, so that a dead store holds nobody else's threads. Reads use the workers
//! alone, and [`Deadline::bound`] for the wait.

mod deadline;
mod failure;
mod key;
mod request;
mod table;
#[cfg(test)]
mod testing;
mod workers;

pub use deadline::Deadline;
pub use failure::{Failure, Refused};
pub use key::{Key, Keys};
pub use request::Request;
pub use table::{Operations, OperationsCount, Running};
pub use workers::{Lane, Workers, WorkersCount, WorkersOptions};
