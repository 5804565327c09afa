//! The sockets of plugins: made, locked, served, drained and removed.
