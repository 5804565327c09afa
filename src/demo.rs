//! The host without configuration and without a cluster: whole lives of volumes, shown step by step.
//!
//! [`enter_namespaces`] is called first, while the process has one thread: what the demo mounts is then seen by nobody
//! else and is gone with the process. [`run`] makes a place for everything, has the host started there, plays the
//! orchestrator over its sockets, and shows that nothing is left.

pub(crate) mod left;
mod namespaces;
mod place;
mod render;
mod run;
mod script;
mod show;
mod stories;
mod volume_io;

pub use namespaces::{Cannot, Footing, enter_namespaces};
pub use place::{Place, SHOWN, Served};
pub use render::{Human, Lines};
pub use run::{Options, RunningHost, run};
pub use show::{Event, Show};
