//! The backends that are configured, those that are open, and the plugins they stand behind.

mod attachments;
mod backend;
mod changed_blocks;
mod copies;
mod fixed_blocks;
mod groups;
mod offers;
mod plugin;
mod snapshots;
mod volumes;

pub use attachments::AttachTo;
pub use backend::{ConfiguredBackend, ServedBackend};
pub use changed_blocks::Blocks;
pub use copies::{BackgroundCopy, copies_in, untold_in};
pub use groups::NewGroup;
pub use offers::Offers;
pub use plugin::{LOSES, Member, Plugin, Remembered};
pub use snapshots::NewSnapshot;
