//! The five services of CSI: wire in, wire out. Each RPC reads like the spec.
