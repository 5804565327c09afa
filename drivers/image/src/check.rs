//! What `check` says of a node and a root.

use std::path::Path;

use dunnage_driver_api::root::{Folder, Root};
use dunnage_driver_api::{Bytes, Finding, FsType, Result};
use rustix::fs::{CWD, Mode, OFlags};

use crate::config::Image;
use crate::files::{SNAPSHOTS, UNFINISHED};
use crate::loop_device::CONTROL;
use crate::room::{self, Folders, Measured};
use crate::store::IMAGES;

/// Looks at everything this configuration needs, and changes nothing.
pub(crate) fn check(config: &Image, driver: &str) -> Vec<Finding> {
    let mut findings = Root::check(&config.root, driver);
    findings.push(loop_driver());
    findings.push(mkfs(config.fs_type));
    findings.extend(direct_io(config));
    findings.extend(promises(config));
    findings
}

fn loop_driver() -> Finding {
    match rustix::fs::open(CONTROL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Finding::ok("the loop driver answers"),
        Err(error) if Path::new(CONTROL).exists() => {
            Finding::error(format!("cannot open {CONTROL}: {error}"), "run as root, in a privileged container")
        }
        Err(error) => Finding::error(
            format!("cannot open {CONTROL}: {error}"),
            "run `modprobe loop`, and give a container the node's /dev",
        ),
    }
}

fn mkfs(fs_type: FsType) -> Finding {
    let tool = fs_type.mkfs();
    match tool.find() {
        Some(path) => Finding::ok(format!("new volumes are formatted by {}", path.display())),
        None => Finding::error(
            format!("{} is not installed", tool.program),
            format!("install the package {}", tool.package),
        ),
    }
}

/// Tries an unnamed file, which is gone at once.
fn direct_io(config: &Image) -> Option<Finding> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(CWD, &config.root, flags, Mode::RUSR | Mode::WUSR);
    if !config.direct_io || open(flags).is_err() {
        return None;
    }
    Some(match open(flags | OFlags::DIRECT) {
        Ok(_) => Finding::ok(format!("root {} takes direct I/O", config.root.display())),
        Err(error) => Finding::warning(
            format!("root {} takes no direct I/O ({error}): what volumes cache is cached twice", config.root.display()),
            "put the root on a file system with direct I/O, or set direct_io: false to have it so",
        ),
    })
}

/// Compares what is promised with what the disk can hold, by the images' lengths.
fn promises(config: &Image) -> Option<Finding> {
    let measured = measure(config)?;
    let finding = match measured {
        Err(error) => Finding::error(error.report(), "see the kernel log"),
        Ok(Measured { total, for_images, lengths }) => {
            let limit = config.overcommit.times(for_images);
            let text = format!(
                "{} are promised to volumes and snapshots; a disk of {} can hold {} of images, {} may be promised",
                Bytes::new(lengths),
                Bytes::new(total),
                Bytes::new(for_images),
                Bytes::new(limit)
            );
            if lengths > limit {
                Finding::warning(text, "free or add room before the volumes fill: their writes would fail")
            } else if config.overcommit.is_thin() && lengths > for_images {
                Finding::warning(text, "watch the disk: volumes can fill it before they are full themselves")
            } else {
                Finding::ok(text)
            }
        }
    };
    Some(Root::promises_room(&config.root, finding))
}

/// `None` where there are no images yet, or no root, which is said elsewhere.
fn measure(config: &Image) -> Option<Result<Measured>> {
    let root = Folder::at(&config.root).ok()?;
    let (images, copies) = (root.folder(IMAGES).ok()?, [SNAPSHOTS, UNFINISHED].map(|name| root.folder(name).ok()));
    Some(room::measure(&Folders { images: &images, copies: copies.each_ref().map(Option::as_ref) }))
}
