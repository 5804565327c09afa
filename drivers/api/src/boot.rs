//! Which run of the kernel this is.

use crate::error::{Error, Result};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this run of the kernel: what the kernel alone holds is gone when it is another.
///
/// # Errors
/// Where /proc does not tell.
pub fn boot_id() -> Result<String> {
    let boot = std::fs::read_to_string(BOOT).map_err(|error| Error::io(format!("cannot read {BOOT}"), error))?;
    Ok(boot.trim().to_owned())
}
