//! The configuration file: what it holds, its defaults, and where in it an error is.
