//! One program that turns any storage into CSI volumes.
