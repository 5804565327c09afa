//! The engine on real loop devices and file systems. These need root; without it they say so and do nothing, unless
//! DUNNAGE_REQUIRE_ALL=1 makes that a failure.

mod attached;
mod block;
mod directory;
mod faults;
mod formatting;
mod growth;
mod in_guest;
mod others;
mod publish;
mod repeated;
mod rig;
mod stage;
