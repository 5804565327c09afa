//! What a running host may do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{MIB, Need, Setup, Volume, can_run, create, mount};

use crate::{DUNNAGE, IMAGE, bring};

/// The capabilities that are promised, by capabilities(7).
const NUMBERS: [(&str, u32); 10] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("SYS_RAWIO", 17),
    ("SYS_ADMIN", 21),
    ("SYS_RESOURCE", 24),
    ("MKNOD", 27),
    ("SETFCAP", 31),
];
const SETPCAP: u64 = 1 << 8;

/// What SECURITY.md says that `serve` keeps.
fn promised() -> Result<u64> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md"))?;
    let list = text.split_once("gives up all capabilities but those that storage needs (").context("no promise")?.1;
    let list = list.split_once(')').context("no end of the list")?.0;
    list.split(',').try_fold(0, |mask, name| {
        let name = name.trim();
        let (_, number) =
            NUMBERS.iter().find(|(known, _)| *known == name).with_context(|| format!("what is {name}?"))?;
        Ok(mask | 1 << number)
    })
}

fn mask(status: &str, field: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(u64::from_str_radix(line.trim_start_matches(':').trim(), 16)?)
}

fn has_no_more(who: &str, status: &str) -> Result<()> {
    let own = fs::read_to_string("/proc/self/status")?;
    let promised = promised()?;
    assert_eq!(mask(status, "CapEff")?, mask(&own, "CapEff")? & promised, "{who}: {status}");
    assert_eq!(mask(status, "CapPrm")?, mask(&own, "CapPrm")? & promised, "{who}: {status}");
    ensure!(mask(status, "CapInh")? & !promised == 0, "{who}: {status}");
    assert_eq!(mask(status, "CapAmb")?, 0, "{who}: {status}");
    if mask(&own, "CapEff")? & SETPCAP != 0 {
        assert_eq!(mask(status, "CapBnd")?, mask(&own, "CapBnd")? & promised, "{who}: {status}");
    }
    ensure!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{who}: {status}");
    Ok(())
}

#[test]
fn a_host_and_its_programs_have_the_capabilities_that_are_promised_and_no_other() -> Result<()> {
    let test = "a_host_and_its_programs_have_the_capabilities_that_are_promised_and_no_other";
    if !can_run(test, &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("disks", "image", "")?;
    let tools = setup.scratch().folder("tools")?;
    let (program, seen) = (tools.join("mkfs.ext4"), tools.join("seen"));
    let script = format!("#!/bin/sh\ncat /proc/self/status > {}\nexec /usr/sbin/mkfs.ext4 \"$@\"\n", seen.display());
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let host = setup.env("PATH", path).start(DUNNAGE)?;
    let client = host.client(IMAGE)?;
    let made = client.create_volume(create("a", 16 * MIB, mount()))?.volume.context("no volume")?;
    let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pods"), true);
    // With less it could not do its work.
    bring(&client, &volume)?;
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", host.pid()?.as_raw_nonzero()))? {
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        has_no_more("a thread", &status)?;
        threads += 1;
    }
    ensure!(threads > 3, "only {threads} threads were looked at");
    has_no_more("mkfs", &fs::read_to_string(seen)?)
}
