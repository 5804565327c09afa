//! Errors to gRPC codes: the only file that names one.
