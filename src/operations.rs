//! The table of running operations, and the threads they run on.
