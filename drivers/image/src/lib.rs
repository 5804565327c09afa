//! Volumes that are image files on loop devices.
//!
//! A volume is a file below the root, sparse or preallocated, and a record beside it. On a node it is bound to a loop
//! device, which the host formats and mounts, or hands on as a raw block device.

mod background;
mod changes;
mod check;
mod config;
mod copier;
mod copies;
mod driver;
mod fiemap;
mod files;
mod groups;
mod image_file;
mod loop_device;
mod node;
mod room;
mod sparse;
mod store;

pub use config::Image;
