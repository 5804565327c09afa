//! The orchestrator's side of the interface: what `bench`, `demo` and `conformance` play over a plugin's socket.
//!
//! Knows nothing of what is behind the socket, so that every CSI plugin is driven alike. What a plugin advertises
//! decides which calls a volume's life has: see [`Offers`] and [`Life`].

mod call;
mod endpoint;
mod error;
mod interrupt;
mod life;
mod node_calls;
mod offers;
mod plugin;
mod request;

pub use call::{Call, UNARY_RPCS};
pub use endpoint::{BadEndpoint, Endpoint};
pub use error::{Error, Result, code_name};
pub use interrupt::Interrupt;
pub(crate) use life::blocking;
pub use life::{Around, Life, Plain};
pub use offers::Offers;
pub use plugin::{DEADLINE, Page, Plugin};
pub use request::{Access, VolumeRequest, capability};

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
