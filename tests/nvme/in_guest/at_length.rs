//! What takes long, or needs all of the machine.

mod cut_off;
mod network;
mod replaced;
