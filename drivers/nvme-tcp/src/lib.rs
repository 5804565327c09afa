//! Block devices over NVMe/TCP, by what the kernel itself has: no daemon, no program.
//!
//! On the node of the store each volume that is attached is a subsystem of the kernel's target (nvmet, through configfs).
//! On every node the kernel's initiator connects to it (`/dev/nvme-fabrics`), and sysfs tells which device it is. Without a
//! store the backend takes namespaces that exist already, of whatever target.
//!
//! Each attachment is a subsystem of its own, with one host that may connect: `<prefix>:<volume>.<word>`. The names of
//! hosts, subsystems and namespaces all follow from what the orchestrator passes, so that no node asks another.

mod check;
mod config;
mod driver;
mod initiator;
mod names;
mod node;
mod nvmet;
mod wanted;

pub use config::NvmeTcp;
