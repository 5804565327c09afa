//! The node engine: what happens to a source between stage and unstage.
