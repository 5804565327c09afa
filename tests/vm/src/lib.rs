//! A guest with a stock Debian kernel, for tests of what the machine's own kernel lacks.
//!
//! A [`Kernel`] is Debian's package, unpacked into a folder of ours and installed nowhere. A [`Guest`] is one QEMU
//! process under software emulation, so that it runs wherever programs run. It sees every file of the machine, read-only
//! and under the same path, with a layer of its own in memory above: what was built and installed on the machine runs
//! inside as it is, and nothing that is done inside stays, but for what is written to a disk that it was given. Each guest
//! has a folder of its own. Several see each other on a [`Network`] of their own, and nothing else.

mod guest;
mod initramfs;
mod kernel;
mod network;
mod program;

pub use guest::{Guest, Hardware, Job, Power};
pub use kernel::Kernel;
pub use network::Network;
