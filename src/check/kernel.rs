//! The kernel's version.

use dunnage_driver_api::Finding;

use crate::mount;

pub(super) fn finding() -> Finding {
    match mount::check_kernel() {
        Ok(()) => Finding::ok(format_args!("Linux {}", rustix::system::uname().release().to_string_lossy())),
        Err(error) => Finding::error(error, "run a later kernel on this node"),
    }
}
