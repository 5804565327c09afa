//! What a storage node does in a guest whose power is cut: it makes and deletes volumes, tells each call before and after,
//! and looks after a boot whether all is as it was told.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Client, Host, MIB, Need, Setup, Volume, VolumeGroup, can_run, create, mount, run, wait_until,
};

/// The test below, by which this is started.
pub(crate) const TEST: &str = "node::a_node_makes_deletes_and_finds_again_what_it_has";
pub(crate) const DRIVER: &str = "DUNNAGE_NODE_DRIVER";
pub(crate) const ROUND: &str = "DUNNAGE_NODE_ROUND";
pub(crate) const BEFORE: &str = "DUNNAGE_NODE_BEFORE";

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const DISKS: &str = "disks.csi.dunnage.dev";
const GROUP: &str = "storage";
const SIZE: i64 = 32 * MIB;
/// LVM is slow in a guest.
const DEADLINE: Duration = Duration::from_secs(300);
const KEPT: &str = "kept";

/// The node with its host, whose records outlive it.
struct Node {
    // Dropped before what it stores in.
    host: Host,
    client: Client,
    group: Option<VolumeGroup>,
    root: Option<PathBuf>,
    state: PathBuf,
}

impl Node {
    /// Starts the host on its disks, which are made ready before the first round.
    fn start(driver: &str, first: bool, store: &str, state_disk: &str) -> Result<Self> {
        let setup = Setup::new()?;
        let (state, root) = (setup.scratch().folder("state")?, setup.scratch().folder("store")?);
        if first {
            run("mkfs.ext4", &["-q", "-F", state_disk])?;
        }
        mount_there(state_disk, &state)?;
        let (group, keys) = match driver.strip_prefix("lvm-") {
            Some(kind) => {
                let devices = vec![store.to_owned()];
                let group =
                    if first { VolumeGroup::named(GROUP, devices)? } else { VolumeGroup::found(GROUP, devices)? };
                if kind == "thin" && first {
                    group.make_pool("pool", 768)?;
                }
                let pool = if kind == "thin" { "pool: pool\n" } else { "" };
                let keys = format!("{}type: {kind}\n{pool}", group.keys());
                (Some(group), keys)
            }
            None => {
                if first {
                    run("mkfs.ext4", &["-q", "-F", store])?;
                }
                mount_there(store, &root)?;
                let quota = if driver == "dir" { "quota: none\n" } else { "" };
                (None, format!("root: {}\n{quota}", root.display()))
            }
        };
        let setup = setup.rootless("disks", driver.split('-').next().unwrap_or(driver), &keys);
        let mut host = setup.prepare(DUNNAGE)?;
        if first {
            host.init()?;
        }
        host.restart()?;
        let client = host.client(DISKS)?.with_deadline(DEADLINE);
        let root = group.is_none().then_some(root);
        Ok(Self { host, client, group, root, state })
    }

    fn create(&self, name: &str) -> Result<csi::Volume> {
        self.client.create_volume(create(name, SIZE, mount()))?.volume.context("no volume")
    }

    fn delete(&self, volume_id: &str) -> Result<()> {
        self.client.delete_volume(csi::DeleteVolumeRequest { volume_id: volume_id.into(), ..Default::default() })?;
        Ok(())
    }

    /// The volume that is in use, with data of its own.
    fn kept(&self) -> Result<Volume> {
        let stages = self.group.is_some() || self.root.as_ref().is_some_and(|root| root.join("images").exists());
        let volume = Volume::new(self.create(KEPT)?, mount(), &self.host.setup().scratch().path().join("pods"), stages);
        if stages {
            self.client.node_stage_volume(volume.stage())?;
        }
        self.client.node_publish_volume(volume.publish())?;
        Ok(volume)
    }

    fn ids(&self) -> Result<BTreeSet<String>> {
        let entries = self.client.list_volumes(Default::default())?.entries.into_iter();
        Ok(entries.filter_map(|entry| entry.volume).map(|volume| volume.volume_id).collect())
    }

    /// The names of all that the store has.
    fn inventory(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        if let Some(group) = &self.group {
            found.extend(group.volumes()?);
        }
        if let Some(root) = &self.root {
            walk(root, root, &mut found)?;
        }
        Ok(found)
    }

    fn is_as(&self, wanted: &BTreeSet<String>) -> Result<()> {
        let mut found = BTreeSet::new();
        let waited = wait_until("the store to have nothing more than before", DEADLINE, || {
            found = self.inventory()?;
            Ok(found == *wanted)
        });
        waited.with_context(|| format!("there is {found:?}, and was {wanted:?}"))
    }
}

fn mount_there(disk: &str, folder: &Path) -> Result<()> {
    let (disk, folder) = (disk.to_owned(), folder.display().to_string());
    run("mount", &[&disk, &folder])
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            walk(root, &path, found)?;
        }
        found.insert(path.strip_prefix(root)?.display().to_string());
    }
    Ok(())
}

/// Past libtest, which keeps what a test prints to itself.
fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush())?)
}

/// The first volume, with its data, and what the store has then.
fn begin(node: &Node) -> Result<()> {
    let kept = node.kept()?;
    // What is made when it is needed first, such as a folder for what is being removed, is there from now on.
    node.delete(&node.create("first")?.volume_id)?;
    wait_until("what was deleted to go", DEADLINE, || {
        Ok(!node.inventory()?.iter().any(|path| path.contains("trash/") || path.contains("first")))
    })?;
    let mut data = File::create(kept.target.join("data"))?;
    data.write_all(b"kept").and_then(|()| data.sync_all())?;
    File::open(&kept.target)?.sync_all()?;
    let words: Vec<_> = node.inventory()?.into_iter().collect();
    let mut file = File::create(node.state.join("inventory"))?;
    file.write_all(words.join("\n").as_bytes()).and_then(|()| file.sync_all())?;
    Ok(File::open(&node.state)?.sync_all()?)
}

/// Everything is as `before` says, and what was not answered is done when it is asked for again.
fn look(node: &Node, before: &str) -> Result<()> {
    let kept = node.kept()?;
    ensure!(fs::read(kept.target.join("data"))? == b"kept", "the data of a volume in use is lost");
    let (mut there, mut answered) = (BTreeSet::from([kept.id()]), BTreeSet::from([kept.id()]));
    for word in before.split_whitespace() {
        let (name, id) = word.split_once('=').with_context(|| format!("what is {word}?"))?;
        if let Some(name) = name.strip_prefix('-') {
            node.delete(id).with_context(|| format!("{name}, whose deletion was begun"))?;
            continue;
        }
        if !id.is_empty() {
            answered.insert(id.to_owned());
        }
        let listed = node.ids()?;
        ensure!(id.is_empty() || listed.contains(id), "{name} was made, and is lost: {listed:?}");
        let again = node.create(name)?;
        ensure!(id.is_empty() || again.volume_id == id, "{name} was {id} and is {}", again.volume_id);
        ensure!(node.create(name)? == again, "{name} is answered otherwise");
        there.insert(again.volume_id);
    }
    ensure!(answered.is_subset(&there), "{answered:?} of {there:?}");
    let listed = node.ids()?;
    ensure!(listed == there, "there is {listed:?} and not {there:?}");
    for id in there.iter().filter(|id| **id != kept.id()) {
        node.delete(id)?;
    }
    let words = fs::read_to_string(node.state.join("inventory"))?;
    node.is_as(&words.lines().map(str::to_owned).collect())?;
    tell("whole")
}

/// Makes and deletes for so many volumes, or for ever.
fn work(node: &Node, round: &str, volumes: Option<usize>) -> Result<()> {
    let mut ids = Vec::new();
    for number in (0..).take_while(|number| volumes.is_none_or(|volumes| *number < volumes)) {
        let name = format!("r{round}-v{number}");
        tell(&format!("creating {name}"))?;
        let id = node.create(&name)?.volume_id;
        tell(&format!("made {name} {id}"))?;
        ids.push((name, id));
        if number % 2 == 1 {
            let (name, id) = &ids[number / 2];
            tell(&format!("deleting {name}"))?;
            node.delete(id)?;
            tell(&format!("deleted {name}"))?;
        }
    }
    Ok(())
}

/// What a node does is right where its power is not cut: here without a guest, and on files in the place of its disks.
#[test]
fn a_node_makes_deletes_and_finds_again_what_it_has() -> Result<()> {
    if let (Ok(driver), Ok(round)) = (std::env::var(DRIVER), std::env::var(ROUND)) {
        let node = Node::start(&driver, round == "0", "/dev/vda", "/dev/vdb")?;
        if round == "0" {
            begin(&node)?;
        } else {
            look(&node, &std::env::var(BEFORE)?)?;
        }
        return if round == "last" { Ok(()) } else { work(&node, &round, None) };
    }
    if !can_run("a_node_makes_deletes_and_finds_again_what_it_has", &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let disks = Setup::new()?;
    let disk = |name: &str| -> Result<String> {
        let path = disks.scratch().path().join(name);
        File::create(&path)?.set_len(256 << 20)?;
        Ok(path.display().to_string())
    };
    let (store, state) = (disk("store-disk")?, disk("state-disk")?);
    let node = Node::start("image", true, &store, &state)?;
    begin(&node)?;
    work(&node, "0", Some(3))?;
    let id = |name: &str| node.create(name).map(|volume| volume.volume_id);
    // Of three one is deleted; a fourth was asked for and not made.
    let (one, two) = (id("r0-v1")?, id("r0-v2")?);
    let gone = id("r0-v0")?;
    look(&node, &format!("-r0-v0={gone} r0-v1={one} r0-v2={two} r0-v3="))
}
