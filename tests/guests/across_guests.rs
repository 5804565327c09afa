//! Guests on a network of their own.

mod at_length;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Need, can_run};
use dunnage_test_vm::{Guest, Hardware, Job, Kernel, Network};

/// Enough for a guest that only answers.
const MEMORY: u32 = 1 << 10;

struct Rig {
    kernel: Kernel,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new(test: &str) -> Result<Option<Self>> {
        if !can_run(test, &[Need::Guests])? {
            return Ok(None);
        }
        let cache = std::env::var_os("DUNNAGE_GUESTS").context("DUNNAGE_GUESTS names no folder")?;
        Ok(Some(Self { kernel: Kernel::fetch(Path::new(&cache))?, folder: tempfile::tempdir()? }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn boot(&self, name: &str, hardware: &Hardware) -> Result<Guest> {
        Guest::boot(&self.kernel, &self.path(name), hardware)
    }
}

/// Runs a line of shell, and gives what it wrote where it succeeded.
fn shell(guest: &mut Guest, line: &str) -> Result<Option<String>> {
    let mut written = String::new();
    let succeeded = guest.run(&Job::new("/bin/sh".as_ref(), "/".as_ref()).args(["-c", line]), |one| {
        written.push_str(one);
        written.push('\n');
    })?;
    Ok(succeeded.then_some(written))
}

#[test]
fn guests_reach_each_other_until_the_network_is_cut_and_again_when_it_is_healed() -> Result<()> {
    let Some(rig) = Rig::new("guests_reach_each_other_until_the_network_is_cut")? else { return Ok(()) };
    let network = Network::new(rig.folder.path());
    let plugged = |number| Hardware::default().memory(MEMORY).plug(&network, number);
    let mut server = rig.boot("server", &plugged(1))?;
    let mut client = rig.boot("client", &plugged(2))?;
    let serve = "mkdir -p /run/www && echo from the server >/run/www/page && busybox httpd -p 80 -h /run/www";
    shell(&mut server, serve)?.context("the server does not start")?;
    let ask = "printf 'GET /page HTTP/1.0\\r\\n\\r\\n'";
    let get = format!("{ask} | timeout 5 busybox nc {} 80 | grep server", Network::address(1));
    assert_eq!(shell(&mut client, &get)?.as_deref(), Some("from the server\n"));
    network.cut(1);
    assert_eq!(shell(&mut client, &get)?, None);
    network.heal(1);
    network.slow(Duration::from_millis(20));
    let again = format!("for i in 1 2 3 4 5 6; do {get} && exit 0; done; exit 1");
    assert_eq!(shell(&mut client, &again)?.as_deref(), Some("from the server\n"));
    Ok(())
}

#[test]
fn what_was_flushed_to_a_disk_outlives_the_power_of_its_guest_and_what_is_in_memory_does_not() -> Result<()> {
    let Some(rig) = Rig::new("what_was_flushed_to_a_disk_outlives_the_power_of_its_guest")? else { return Ok(()) };
    let disk = rig.path("disk");
    File::create(&disk)?.set_len(64 << 20)?;
    let hardware = Hardware::default().memory(MEMORY).disk(&disk);
    let mut guest = rig.boot("guest", &hardware)?;
    let write = "mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo kept >/mnt/kept && sync && echo lost >/run/lost";
    shell(&mut guest, write)?.context("it does not write")?;
    drop(guest);
    let mut guest = rig.boot("guest", &hardware)?;
    let found = shell(&mut guest, "mount /dev/vda /mnt && cat /mnt/kept && [ ! -e /run/lost ]")?;
    ensure!(found.as_deref() == Some("kept\n"), "{found:?}");
    Ok(())
}
