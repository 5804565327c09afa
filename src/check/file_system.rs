//! The file systems that can be made on block devices here.

use dunnage_driver_api::{Finding, FsType, Tool};

use crate::mount;

/// What the mount engine makes, checks and grows a file system with.
fn tools(fs_type: FsType) -> impl Iterator<Item = &'static Tool> {
    mount::TOOLS.iter().filter(move |tool| tool.package == fs_type.mkfs().package)
}

pub(super) fn findings() -> Vec<Finding> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let loaded = read("/proc/filesystems");
    let folder = format!("/lib/modules/{}", rustix::system::uname().release().to_string_lossy());
    let modules = read(&format!("{folder}/modules.builtin")) + &read(&format!("{folder}/modules.dep"));
    FsType::ALL
        .into_iter()
        .map(|fs_type| {
            let missing: Vec<_> = tools(fs_type).filter(|tool| tool.find().is_none()).collect();
            finding(fs_type, in_kernel(fs_type, &loaded, &modules), &missing)
        })
        .collect()
}

/// Whether the kernel has the file system, or a module that it loads when it is first mounted.
fn in_kernel(fs_type: FsType, loaded: &str, modules: &str) -> bool {
    let module = format!("/{fs_type}.ko");
    loaded.lines().any(|line| line.split_whitespace().next_back() == Some(fs_type.as_str()))
        || modules.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&module)))
}

/// A warning where something is missing, since only block devices with this file system need it.
fn finding(fs_type: FsType, in_kernel: bool, missing: &[&Tool]) -> Finding {
    let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    match (in_kernel, missing.first()) {
        (true, None) => Finding::ok(format_args!("block devices can have {fs_type}")),
        (true, Some(tool)) => Finding::warning(
            format_args!("block devices cannot have {fs_type}: {} is not installed", programs.join(" and ")),
            format_args!("install the package {}", tool.package),
        ),
        (false, _) => Finding::warning(
            format_args!("block devices cannot have {fs_type}: the kernel does not know it"),
            format_args!("use another file system, or load the module {fs_type} (modprobe {fs_type})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    #[test]
    fn a_file_system_is_loaded_built_in_or_a_module() {
        let modules =
            "kernel/fs/ext4/ext4.ko\nkernel/fs/btrfs/btrfs.ko.zst: kernel/lib/xor.ko.zst kernel/fs/xfs/xfs.ko\n";
        assert!(in_kernel(FsType::Ext4, "", modules));
        assert!(in_kernel(FsType::Btrfs, "", modules));
        assert!(!in_kernel(FsType::Xfs, "nodev\tproc\n", modules));
        assert!(in_kernel(FsType::Xfs, "nodev\tproc\n\txfs\n", ""));
    }

    #[test]
    fn each_tool_of_the_mount_engine_is_looked_for_once() {
        assert_eq!(FsType::ALL.into_iter().flat_map(tools).count(), mount::TOOLS.len());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let missing: Vec<_> = tools(FsType::Xfs).collect();
        let finding = finding(FsType::Xfs, true, &missing);
        assert_eq!((finding.severity, finding.remedy.as_str()), (Severity::Warning, "install the package xfsprogs"));
    }
}
