//! What two hosts must not share, and what a dead one leaves.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunnage_test_common::{Setup, get, wait_until};
use rustix::fs::{FlockOperation, flock};

use crate::{DUNNAGE, SOUND, needs_root};

const LIMIT: Duration = Duration::from_secs(60);

fn sound() -> Result<Setup> {
    Setup::new()?.backend("sound", "dir", "quota: none")
}

#[test]
fn the_second_host_on_a_state_folder_ends_and_says_who_has_it() -> Result<()> {
    if !needs_root("the_second_host_on_a_state_folder_ends_and_says_who_has_it")? {
        return Ok(());
    }
    let first = sound()?.start(DUNNAGE)?;
    let second = first.run(&["serve"])?;
    ensure!(!second.status.success(), "it serves");
    let said = String::from_utf8_lossy(&second.stderr) + String::from_utf8_lossy(&second.stdout);
    let process = format!("process {}", first.pid()?.as_raw_nonzero());
    for word in ["state", "in use", process.as_str()] {
        ensure!(said.contains(word), "{word:?} is not in {said}");
    }
    // The first one did not lose its socket by it.
    first.client(SOUND)?.probe(Default::default())?;
    let beside: Vec<_> =
        fs::read_dir(first.socket(SOUND).parent().unwrap())?.map(|one| one.unwrap().file_name()).collect();
    assert_eq!(beside, ["csi.sock"]);
    Ok(())
}

#[test]
fn a_socket_of_a_killed_host_is_replaced_and_one_that_is_served_is_not() -> Result<()> {
    if !needs_root("a_socket_of_a_killed_host_is_replaced_and_one_that_is_served_is_not")? {
        return Ok(());
    }
    let mut host = sound()?.start(DUNNAGE)?;
    host.kill()?;
    ensure!(host.socket(SOUND).exists(), "the test does not test");
    host.restart()?;
    ensure!(host.terminate()?.success() && !host.socket(SOUND).exists(), "a host that stops removes its socket");
    let other = UnixListener::bind(host.socket(SOUND))?;
    host.spawn()?;
    host.wait_for_log("another process accepts at the socket")?;
    drop(other);
    wait_until("the plugin to be served", LIMIT, || {
        Ok(host.client(SOUND).is_ok_and(|client| client.probe(Default::default()).is_ok()))
    })
}

#[test]
fn what_is_no_socket_in_the_place_of_one_is_left_alone() -> Result<()> {
    if !needs_root("what_is_no_socket_in_the_place_of_one_is_left_alone")? {
        return Ok(());
    }
    let mut host = sound()?.prepare(DUNNAGE)?;
    host.init()?;
    let socket = host.socket(SOUND);
    fs::create_dir_all(socket.parent().unwrap())?;
    fs::write(&socket, "mine")?;
    host.spawn()?;
    host.wait_for_log("is no socket")?;
    assert_eq!(fs::read_to_string(&socket)?, "mine");
    fs::remove_file(&socket)?;
    host.wait_for(SOUND)
}

#[test]
fn storage_is_served_while_the_address_of_metrics_is_taken() -> Result<()> {
    if !needs_root("storage_is_served_while_the_address_of_metrics_is_taken")? {
        return Ok(());
    }
    let other = TcpListener::bind("127.0.0.1:0")?;
    let address = other.local_addr()?;
    let host = sound()?.set("telemetry", &format!("{{listen: '{address}'}}")).start(DUNNAGE)?;
    host.wait_for_log("metrics and health are not served")?;
    ensure!(host.log().contains(&address.to_string()), "the address is not named");
    host.client(SOUND)?.probe(Default::default())?;
    drop(other);
    wait_until("health to be served", LIMIT, || Ok(get(address, "/livez").is_ok()))
}

#[test]
fn locked_folders_of_sockets_neither_stop_the_process_nor_keep_it_from_its_end() -> Result<()> {
    if !needs_root("locked_folders_of_sockets_neither_stop_the_process_nor_keep_it_from_its_end")? {
        return Ok(());
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // As many as the runtime has threads.
    let names = ["first.csi.dunnage.dev", "second.csi.dunnage.dev"];
    let setup = sound()?.backend("first", "dir", "quota: none")?.backend("second", "dir", "quota: none")?;
    let mut host = setup.set("telemetry", &format!("{{listen: '{address}'}}")).prepare(DUNNAGE)?;
    host.init()?;
    let mut locks = Vec::new();
    for name in names {
        let socket = host.socket(name);
        let folder = socket.parent().unwrap();
        fs::create_dir_all(folder)?;
        let lock = fs::File::open(folder)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        locks.push((folder.to_owned(), lock));
    }
    host.spawn()?;
    host.wait_for(SOUND)?;
    for (folder, _) in &locks {
        host.wait_for_log(&format!("the folder {} of the socket is locked by another process", folder.display()))?;
    }
    get(address, "/livez")?;
    ensure!(host.terminate()?.success(), "it does not end well");
    host.spawn()?;
    host.wait_for(SOUND)?;
    drop(locks);
    names.iter().try_for_each(|name| host.wait_for(name))
}
