//! The way LVM is called.
//!
//! Every command is told the devices it may look at, so that no other disk of the node is read, and the settings that are
//! not left to the node's lvm.conf:
//! - no udev: LVM makes and removes the nodes in `/dev` itself and waits for nobody, so that it works the same in a
//!   container, where no udevd answers, and beside one. The kernel's own name of a device (`/dev/dm-N`) is all that is used;
//! - no monitoring: dmeventd would have to run where the command runs;
//! - no copies of the metadata in /etc/lvm: each disk has the metadata, with its history, and the root of a container may
//!   be read-only;
//! - no priority above others, which the host has no right to give;
//! - locks are waited for, by LVM's own files in /run/lock/lvm, which a container must share with the node.

use dunnage_driver_api::{Command, Commands, Error, ErrorKind, Result, Tool};

use crate::report::{COLUMNS, Report};

/// The program that is all commands of LVM.
pub(crate) const LVM: Tool = Tool { program: "lvm", package: "lvm2" };
/// Lets the kernel's devices go without reading a disk.
pub(crate) const DMSETUP: Tool = Tool { program: "dmsetup", package: "dmsetup" };
/// Started by LVM before a thin pool is used.
pub(crate) const THIN_CHECK: Tool = Tool { program: "thin_check", package: "thin-provisioning-tools" };

const SETTINGS: &str = "activation{monitoring=0 udev_sync=0 udev_rules=0 process_priority=0} backup{backup=0 archive=0} \
                        devices{obtain_device_list_from_udev=0 external_device_info_source=\"none\" hints=\"none\"} \
                        global{use_lvmpolld=0 notify_dbus=0 wait_for_locks=1}";

/// What a report may be long: about 50,000 volumes.
const LONGEST: usize = 64 << 20;

/// A volume group and the disks it is on.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    name: String,
    devices: String,
}

impl Group {
    pub(crate) fn new(name: &str, devices: &[String]) -> Self {
        Self { name: name.into(), devices: devices.join(",") }
    }

    /// A logical volume as LVM's commands take it.
    pub(crate) fn path(&self, volume: &str) -> String {
        format!("{}/{volume}", self.name)
    }

    /// Asks LVM for the whole group, in one command.
    ///
    /// # Errors
    /// `FailedPrecondition` where there is no such group on the devices; never `NotFound`, since nothing is known then.
    pub(crate) fn report(&self, commands: &dyn Commands) -> Result<Report> {
        let mut command = self.command("fullreport").keeping(LONGEST);
        command = command.args(["--reportformat", "json", "--units", "b", "--nosuffix"]);
        for (part, columns) in COLUMNS {
            command = command.args(["--configreport", part, "--options", columns]);
        }
        // The other parts of a full report are long, and nobody here reads them.
        for (part, column) in [("pvseg", "pvseg_start"), ("seg", "seg_start_pe")] {
            command = command.args(["--configreport", part, "--options", column]);
            command = command.args(["--select", &format!("{column}=1099511627775")]);
        }
        let output = self.run(commands, &command.arg(&self.name))?;
        Report::parse(&output)
    }

    /// Where the extents of this logical volume, or of the images of the RAID that it is, lie: as `disk:first-last`.
    ///
    /// # Errors
    /// Where LVM cannot tell.
    pub(crate) fn extents(&self, commands: &dyn Commands, volume: &str) -> Result<Vec<String>> {
        let command = self.command("lvs").args(["--all", "--noheadings", "--separator", "\t"]);
        let command = command.args(["--options", "lv_name,seg_pe_ranges"]).arg(&self.name);
        let output = self.run(commands, &command)?;
        let image = format!("{volume}_rimage_");
        let mut extents = Vec::new();
        for line in output.lines() {
            let Some((name, ranges)) = line.trim().split_once('\t') else { continue };
            let name = name.trim_matches(['[', ']']);
            if name == volume || name.starts_with(&image) {
                // Those of a RAID are its images, which have rows of their own.
                extents.extend(ranges.split_whitespace().filter(|range| range.starts_with('/')).map(str::to_owned));
            }
        }
        Ok(extents)
    }

    /// Runs a command that changes something, without asking back.
    ///
    /// # Errors
    /// As [`failure`].
    pub(crate) fn change<S: AsRef<str>>(
        &self,
        commands: &dyn Commands,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let mut command = self.command(name).args(["--yes", "-qq"]);
        for argument in arguments {
            command = command.arg(argument.as_ref());
        }
        self.run(commands, &command).map(drop)
    }

    fn command(&self, name: &str) -> Command {
        LVM.command().args([name, "--devices", &self.devices, "--config", SETTINGS])
    }

    fn run(&self, commands: &dyn Commands, command: &Command) -> Result<String> {
        let output = commands.run(command)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let kind = kind(&output.stderr);
        let error = Error::new(kind.0, format!("{} {}", self.name, kind.1));
        Err(match output.success(command) {
            Err(said) if kind.0 == ErrorKind::Internal => said,
            Err(said) => error.caused_by(said),
            Ok(_) => error,
        })
    }
}

/// What a failure of LVM means, by its words: they are those of `LC_ALL=C`, and what is not known is an internal error.
fn kind(said: &str) -> (ErrorKind, &'static str) {
    const KNOWN: &[(&str, ErrorKind, &str)] = &[
        ("Volume group \"", ErrorKind::FailedPrecondition, "is not on the devices of the backend: is a disk missing?"),
        ("Multiple VGs found", ErrorKind::FailedPrecondition, "is the name of several volume groups: rename one"),
        ("of partial LV", ErrorKind::FailedPrecondition, "has lost a disk with data of the volume: bring it back"),
        ("while PVs are missing", ErrorKind::FailedPrecondition, "has lost a disk: bring it back, or replace it"),
        ("insufficient free space", ErrorKind::ResourceExhausted, "has no room for it"),
        ("nsufficient suitable", ErrorKind::ResourceExhausted, "has no room for it on as many disks as it needs"),
        ("reached threshold", ErrorKind::ResourceExhausted, "has a thin pool that is full: grow it"),
        (
            "not detected in your kernel",
            ErrorKind::FailedPrecondition,
            "needs a module of the kernel: run `modprobe -a dm_thin_pool dm_raid` on the node, at each start",
        ),
        ("metadata too large", ErrorKind::ResourceExhausted, "has no room for more metadata: see `vgs -o vg_mda_free`"),
        (" in use", ErrorKind::FailedPrecondition, "has the logical volume still in use: unmount it everywhere"),
        ("Device or resource busy", ErrorKind::FailedPrecondition, "has the logical volume frozen or in use"),
    ];
    let known = KNOWN.iter().find(|(words, ..)| said.contains(words) && is_told(words, said));
    known.map_or((ErrorKind::Internal, ""), |(_, kind, remedy)| (*kind, remedy))
}

/// "Volume group "x" not found" has the name between its words.
fn is_told(words: &str, said: &str) -> bool {
    !words.starts_with("Volume group") || said.contains("\" not found")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::sync::Mutex;

    use dunnage_driver_api::Output;

    use super::*;

    /// Answers each command with the same, and remembers it.
    struct Says(i32, &'static str, String, Mutex<Vec<String>>);

    impl Commands for Says {
        fn run(&self, command: &Command) -> Result<Output> {
            let line = command.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
            self.3.lock().unwrap().push(line.join(" "));
            Ok(Output::new(ExitStatus::from_raw(self.0 << 8), self.2.clone(), self.1))
        }
    }

    fn group() -> Group {
        Group::new("vg", &["/dev/sdb".into(), "/dev/sdc".into()])
    }

    #[test]
    fn every_command_is_told_its_devices_and_needs_no_udev() {
        let says = Says(0, "", String::new(), Mutex::default());
        group().change(&says, "lvremove", ["vg/vol-a"]).unwrap();
        let _ = group().report(&says);
        let _ = group().extents(&says, "vol-a");
        for line in says.3.into_inner().unwrap() {
            assert!(line.contains("--devices /dev/sdb,/dev/sdc"), "{line}");
            assert!(line.contains("udev_sync=0") && line.contains("monitoring=0"), "{line}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_never_means_that_a_volume_is_not() {
        for (said, kind) in [
            ("  Volume group \"vg\" not found\n  Cannot process volume group vg", ErrorKind::FailedPrecondition),
            ("  Multiple VGs found with the same name: skipping vg", ErrorKind::FailedPrecondition),
            ("  WARNING: Couldn't find device", ErrorKind::Internal),
            ("", ErrorKind::Internal),
        ] {
            let error = group().report(&Says(5, said, String::new(), Mutex::default())).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        let cut = Says(0, "", "{\"report\": [".into(), Mutex::default());
        assert_eq!(group().report(&cut).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn what_lvm_says_of_room_becomes_the_kind_that_says_so() {
        for (said, kind) in [
            (
                "  Volume group \"vg\" has insufficient free space (3 extents): 4 required.",
                ErrorKind::ResourceExhausted,
            ),
            (
                "  Insufficient suitable allocatable extents for logical volume a: 4 more required",
                ErrorKind::ResourceExhausted,
            ),
            (
                "  Cannot create new thin volume, free space in thin pool vg/pool reached threshold.",
                ErrorKind::ResourceExhausted,
            ),
            ("  Logical volume vg/vol-a in use.", ErrorKind::FailedPrecondition),
            ("  Cannot change VG vg while PVs are missing.", ErrorKind::FailedPrecondition),
            ("  Logical Volume \"vol-a\" already exists in volume group \"vg\"", ErrorKind::Internal),
        ] {
            let says = Says(5, said, String::new(), Mutex::default());
            let error = group().change(&says, "lvcreate", ["vg"]).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.report().contains(said.trim()), "{}", error.report());
        }
    }

    #[test]
    fn the_extents_of_a_raid_are_those_of_its_images() {
        let table = "  vol-a\t/dev/sdb:0-3\n  wipe-a\twipe-a_rimage_0:0-1 wipe-a_rimage_1:0-1\n  \
                     [wipe-a_rimage_0]\t/dev/sdb:8-9\n  [wipe-a_rimage_1]\t/dev/sdc:8-8\n  \
                     [wipe-a_rimage_1]\t/dev/sdc:11-11\n  [wipe-a_rmeta_0]\t/dev/sdb:7-7\n";
        let says = Says(0, "", table.into(), Mutex::default());
        assert_eq!(group().extents(&says, "wipe-a").unwrap(), ["/dev/sdb:8-9", "/dev/sdc:8-8", "/dev/sdc:11-11"]);
        assert_eq!(group().extents(&says, "vol-a").unwrap(), ["/dev/sdb:0-3"]);
    }
}
