//! What tests of drivers and of the host share: faults that can be had on purpose, and with the feature `conformance`
//! the suite that every driver is held against.
//!
//! A call of a driver that fails at any step is called again, and must then end right, with nothing left of the first:
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use dunnage_driver_api::{Driver, System};
//! use dunnage_testkit::{Opened, for_each_operation};
//!
//! # fn test<D: Driver>(acme: impl Fn(&Path) -> D) {
//! for_each_operation(|faults, root| {
//!     let store = Opened::new(&acme(root), Arc::new(System)).unwrap();
//!     let volume = faults.repeated(|| store.create("pvc-1", 1 << 20));
//!     faults.repeated(|| store.delete(&volume));
//!     assert_eq!(store.list().unwrap(), []);
//!     assert_eq!(std::fs::read_dir(root.join("data")).unwrap().count(), 0);
//! });
//! # }
//! ```
//! [`for_each_operation`] has the file system fail that the store lies on, [`for_each_command`] the programs that are run.

#[cfg(feature = "conformance")]
mod conformance;
mod faults;
mod fuse_store;
mod need;
mod opened;

#[cfg(feature = "conformance")]
pub use conformance::conformance;
pub use faults::{Fault, Faults, FaultyCommands, for_each_command, for_each_operation};
pub use fuse_store::{BadSectors, FuseStore};
pub use need::needs_root;
pub use opened::Opened;
