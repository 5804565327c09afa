//! The kernel's version.

use dunnage_driver_api::Finding;

/// The first release with all system calls that are used.
const LEAST: (u32, u32) = (5, 14);

pub(super) fn findings() -> Vec<Finding> {
    vec![finding(&rustix::system::uname().release().to_string_lossy())]
}

fn finding(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= LEAST => Finding::ok(format_args!("Linux {release}")),
        _ => Finding::error(
            format_args!("Linux {release} is too old"),
            format_args!("use a kernel of release {}.{} or later", LEAST.0, LEAST.1),
        ),
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn a_kernel_before_5_14_is_an_error() {
        for (release, severity) in [
            ("5.14.0-362.el9.x86_64", Severity::Ok),
            ("6.1.0-18-amd64", Severity::Ok),
            ("10.0-rc1", Severity::Ok),
            ("5.13.19", Severity::Error),
            ("4.18.0-553.el8", Severity::Error),
            ("strange", Severity::Error),
        ] {
            assert_eq!(finding(release).severity, severity, "{release}");
        }
    }
}
