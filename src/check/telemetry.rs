//! The address of metrics and health.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use dunnage_driver_api::Finding;

/// Takes the address for an instant. `ours` says whether a host of this configuration runs, so that it may well be that
/// one which has it. Storage is served without it, hence no error.
pub(super) fn finding(address: Option<SocketAddr>, ours: bool) -> Finding {
    let Some(address) = address else { return Finding::ok("metrics and health are off") };
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(format_args!("metrics and health can be served on {address}")),
        Err(error) if ours && error.kind() == ErrorKind::AddrInUse => {
            Finding::ok(format_args!("{address} is in use while the host runs"))
        }
        Err(error) => Finding::warning(
            format_args!("metrics and health cannot be served on {address}: {error}"),
            "set `telemetry: {listen: IP:PORT}` to an address of this node that is free (`ss -ltnp` tells who has it)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_unless_a_host_runs() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        assert_eq!(finding(Some(address), false).severity, Severity::Warning);
        assert_eq!(finding(Some(address), true).severity, Severity::Ok);
        drop(other);
        assert_eq!(finding(Some(address), false).severity, Severity::Ok);
        assert_eq!(finding(None, false).severity, Severity::Ok);
        // An address of documentation, which no node has.
        assert_eq!(finding(Some("192.0.2.1:9095".parse().unwrap()), true).severity, Severity::Warning);
    }
}
