//! What an XFS has found to be damaged while it was mounted, or by a scrub (Linux 6.9 notes both).

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::ioctl;

/// How many allocation groups are asked. Each has its header read, and one of a thousand says enough.
const GROUPS: u32 = 1024;

/// The parts of the XFS that a file lies on which are damaged, for people; `None` where it knows of none.
pub(super) fn sick(file: impl AsFd) -> Option<String> {
    let geometry = ioctl::xfs_geometry(&file).ok()?;
    if geometry.sick != 0 {
        return Some(format!("structures of the whole (sick {:#x} of xfs_fsop_geom)", geometry.sick));
    }
    (0..geometry.agcount.min(GROUPS)).find_map(|group| match ioctl::xfs_group(&file, group) {
        Ok(seen) if seen.ag_sick != 0 => {
            Some(format!("allocation group {group} (sick {:#x} of xfs_ag_geometry)", seen.ag_sick))
        }
        // EFSCORRUPTED and EFSBADCRC.
        Err(error @ (Errno::UCLEAN | Errno::BADMSG)) => {
            Some(format!("the header of allocation group {group} ({error})"))
        }
        Ok(_) | Err(_) => None,
    })
}
