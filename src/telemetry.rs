//! Logs, metrics and the health endpoint: one layer around the way of a request.
