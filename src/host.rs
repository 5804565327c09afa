//! The process: everything that a configuration asks for, started, watched and ended.
