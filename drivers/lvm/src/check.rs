//! What `check` says of a node and a group.

use dunnage_driver_api::{Bytes, Commands, ErrorKind, Finding, FsType, Tool};

use crate::config::{Kind, Lvm};
use crate::group::{DMSETUP, Group, LVM, THIN_CHECK};
use crate::report::Report;
use crate::{marker, room};

/// The first release of LVM with `--devices` and `--setautoactivation`.
const OLDEST: (u32, u32, u32) = (2, 3, 12);

/// Looks at everything this configuration needs, and changes nothing.
pub(crate) fn check(config: &Lvm, commands: &dyn Commands) -> Vec<Finding> {
    let mut findings = vec![version(commands), mkfs(config.fs_type)];
    if config.pool().is_some() {
        findings.push(installed(THIN_CHECK, "thin pools are checked by"));
    }
    findings.push(kernel(config, commands));
    match Group::new(&config.vg, &config.devices).report(commands) {
        Ok(report) => findings.extend(group(config, &report)),
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::FailedPrecondition => "make the volume group, or correct the keys vg and devices",
                _ => "run this as root, in a container with the node's /dev, and see the kernel log",
            };
            findings.push(Finding::error(error.report(), remedy));
        }
    }
    findings
}

fn version(commands: &dyn Commands) -> Finding {
    let command = LVM.command().args(["version"]);
    let said = commands.run(&command).map(|output| output.stdout).unwrap_or_default();
    let oldest = format!("{}.{:02}.{}", OLDEST.0, OLDEST.1, OLDEST.2);
    let Some(version) = parse(&said) else {
        return Finding::error("lvm does not tell its version", format!("install the package lvm2, {oldest} or later"));
    };
    let text = format!("LVM is {}.{:02}.{}", version.0, version.1, version.2);
    if version >= OLDEST {
        return Finding::ok(text);
    }
    Finding::error(format!("{text}, and {oldest} is needed"), "install a later lvm2, or use the container")
}

fn parse(said: &str) -> Option<(u32, u32, u32)> {
    let version = said.lines().find_map(|line| line.trim().strip_prefix("LVM version:"))?.trim();
    let mut numbers = version.split(['.', '(']).map(|number| number.trim().parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// The host has no right to have LVM load modules, so that they must be there.
fn kernel(config: &Lvm, commands: &dyn Commands) -> Finding {
    let command = DMSETUP.command().arg("targets");
    let said = match commands.run(&command).and_then(|output| output.success(&command)) {
        Ok(output) => output.stdout,
        Err(error) => return Finding::error(error.report(), "run as root, and `modprobe dm_mod` on the node"),
    };
    let has = |target: &str| said.lines().any(|line| line.split_whitespace().next() == Some(target));
    match config.kind {
        Kind::Thin if !has("thin-pool") => {
            Finding::error("the kernel has no thin pools", "run `modprobe dm_thin_pool` on the node, at each start")
        }
        Kind::Thick if !has("raid") => Finding::warning(
            "the kernel has no RAID of the device mapper: classes with type raid1 or raid10 make no volumes",
            "run `modprobe dm_raid` on the node, at each start, where there are such classes",
        ),
        _ => Finding::ok("the kernel has the device mapper with what the volumes need"),
    }
}

fn installed(tool: Tool, what: &str) -> Finding {
    match tool.find() {
        Some(path) => Finding::ok(format!("{what} {}", path.display())),
        None => Finding::error(
            format!("{} is not installed", tool.program),
            format!("install the package {}", tool.package),
        ),
    }
}

fn mkfs(fs_type: FsType) -> Finding {
    installed(fs_type.mkfs(), "new volumes are formatted by")
}

fn group(config: &Lvm, report: &Report) -> Vec<Finding> {
    let mut findings = vec![marked(config, report)];
    if report.missing > 0 {
        let text = format!("{} disks of the volume group {} are missing", report.missing, config.vg);
        findings.push(Finding::error(text, "list all of them in the key devices, or bring them back"));
    }
    findings.push(metadata(config, report));
    match config.pool() {
        Some(name) => findings.extend(pool(config, report, name)),
        None => findings.push(Finding::ok(format!(
            "the volume group {} has {} free of {}",
            config.vg,
            Bytes::new(report.free),
            Bytes::new(report.size)
        ))),
    }
    findings
}

fn marked(config: &Lvm, report: &Report) -> Finding {
    match marker::find(report, config) {
        Ok(Some(instance)) => {
            let shared = Finding::error(
                format!("the volume group {} has more than one backend", config.vg),
                "give each backend a group of its own",
            );
            let copied = Finding::error(
                format!("instance {instance} has more than one volume group: one was copied with its tags"),
                "serve one of the copies alone: by their ids its volumes cannot be told from the other's",
            );
            Finding::ok(format!("the volume group {} is instance {instance}", config.vg))
                .claiming(format!("volume group {}", report.uuid), shared)
                .claiming(format!("instance {instance}"), copied)
        }
        Ok(None) => match marker::refuse_foreign(config, report) {
            Ok(()) => Finding::error(
                format!("the volume group {} is empty and has no tag of ours", config.vg),
                "if its disk was replaced, put it back; if it is new, run `dunnage init`",
            ),
            Err(error) => Finding::error(error.report(), "`dunnage init` marks an empty group alone"),
        },
        Err(error) => Finding::error(error.report(), "correct the configuration, or the tags with vgchange"),
    }
}

/// Each logical volume takes some of it: with the size that LVM gives it unless told, there is room for some hundreds.
fn metadata(config: &Lvm, report: &Report) -> Finding {
    let (size, free) = report.metadata;
    let text = format!(
        "LVM has {} free of {} for the metadata of the volume group {}",
        Bytes::new(free),
        Bytes::new(size),
        config.vg
    );
    if free >= size / 10 {
        return Finding::ok(text);
    }
    Finding::warning(text, "no volume can be made when it is full: add a disk made with `pvcreate --metadatasize`")
}

fn pool(config: &Lvm, report: &Report, name: &str) -> Vec<Finding> {
    let pool = match report.pool(name) {
        Ok(pool) => pool,
        Err(error) => return vec![Finding::error(error.report(), "make the thin pool, or correct the key pool")],
    };
    let (promised, limit) = (report.promised(name), config.overcommit().times(pool.size));
    let text = format!(
        "{} are promised to volumes and snapshots; the thin pool {name} has {}, {} may be promised",
        Bytes::new(promised),
        Bytes::new(pool.size),
        Bytes::new(limit)
    );
    let mut findings = vec![if promised > limit {
        Finding::warning(text, "grow the pool before the volumes fill: their writes would fail")
    } else if config.overcommit().is_thin() && promised > pool.size {
        Finding::warning(text, "watch the pool: volumes can fill it before they are full themselves")
    } else {
        Finding::ok(text)
    }];
    let full = room::full(pool, config.watermarks()).filter(|_| pool.data_percent.is_some());
    findings.extend(full.map(|full| Finding::warning(full, "nothing is made or grown until then")));
    if pool.when_full == "queue" {
        findings.push(Finding::warning(
            format!("writes to the thin pool {name} hang for a minute when it is full, before they fail"),
            "run `lvchange --errorwhenfull y` on it",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let said = "  LVM version:     2.03.16(2) (2022-05-18)\n  Library version: 1.02.185 (2022-05-18)\n";
        assert_eq!(parse(said), Some((2, 3, 16)));
        assert!(parse(said).unwrap() >= OLDEST);
        assert!(parse("  LVM version:     2.03.11(2) (2021-01-08)").unwrap() < OLDEST);
        assert_eq!(parse("lvm: command not found"), None);
    }
}
