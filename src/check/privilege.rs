//! What this process may do.

use dunnage_driver_api::Finding;

/// The number of CAP_SYS_ADMIN (capabilities(7)).
const SYS_ADMIN: u32 = 21;
/// The first user namespace, by the kernel's fixed number: root in another one is not root of the host.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

pub(super) fn look() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/user").unwrap_or_default();
    finding(&status, namespace.as_os_str() == FIRST_USER_NAMESPACE)
}

fn finding(status: &str, first: bool) -> Finding {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    match (effective >> SYS_ADMIN & 1 == 1, first) {
        (true, true) => Finding::ok("this process may mount (CAP_SYS_ADMIN)"),
        (true, false) => Finding::warning(
            "this process may mount directories, but no block devices: it is in a user namespace",
            "run it as root of the host for backends that make block devices",
        ),
        (false, _) => Finding::error(
            "this process may not mount: it has no CAP_SYS_ADMIN",
            "run it as root; in Kubernetes with `privileged: true`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn without_the_right_to_mount_nothing_works() {
        for (status, first, severity) in [
            ("CapPrm:\t0\nCapEff:\t000001ffffffffff\n", true, Severity::Ok),
            ("CapEff:\t0000000000200000\n", false, Severity::Warning),
            ("CapEff:\t00000000a80425fb\n", true, Severity::Error),
            ("", true, Severity::Error),
        ] {
            assert_eq!(finding(status, first).severity, severity, "{status}");
        }
    }
}
