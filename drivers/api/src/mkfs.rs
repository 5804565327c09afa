//! Which program makes a file system, and which package has it.

use crate::capability::FsType;
use crate::command::Tool;

impl FsType {
    /// The program that makes it. Those that check and grow it are in the same package.
    pub const fn mkfs(self) -> Tool {
        match self {
            Self::Ext4 => Tool { program: "mkfs.ext4", package: "e2fsprogs" },
            Self::Xfs => Tool { program: "mkfs.xfs", package: "xfsprogs" },
            Self::Btrfs => Tool { program: "mkfs.btrfs", package: "btrfs-progs" },
        }
    }
}
