//! Volumes that are whole disks and partitions of a node.
//!
//! A volume is a disk, or a partition, that was found by the rules of the configuration and carried nothing: all of it, from
//! its first byte to its last. Which one is kept in a record, in a root of the backend, by an identity that the hardware
//! gives; a disk that has none is never used. A disk that is taken and not yet used bears a mark, which tells it from an
//! empty one also where the record is not known: to other backends and to other nodes. A disk whose volume was deleted is
//! wiped in the background, and then is one of the empty ones again.

mod check;
mod config;
mod content;
mod deleting;
mod driver;
mod gpt;
mod health;
mod identity;
mod ioctl;
mod kernel;
mod mark;
mod node;
mod rules;
mod seeing;
mod store;
mod taking;
mod wipe;
mod wiper;
mod wiping;

pub use config::Disk;
