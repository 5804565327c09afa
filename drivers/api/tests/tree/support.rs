//! Disks, trees, and pictures of trees.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dunnage_driver_api::Result;
use dunnage_driver_api::root::{Copied, Folder, TreeCopy};
use rustix::fs::{CWD, FileType, IFlags, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};
use tempfile::{NamedTempFile, TempDir};

/// A file system of a test's own.
pub(crate) struct Disk {
    pub(crate) kind: &'static str,
    path: PathBuf,
    _folder: Option<TempDir>,
    _image: Option<NamedTempFile>,
}

impl Disk {
    /// A small one in memory, in this place.
    pub(crate) fn mounted_at(path: &Path) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=1M", "tmpfs", text(path)]);
        Self { kind: "tmpfs", path: path.into(), _folder: None, _image: None }
    }

    /// One of each kind.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ["ext4", "xfs", "btrfs", "tmpfs"].into_iter().map(|kind| Self::new(kind, 1 << 30))
    }

    pub(crate) fn new(kind: &'static str, bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        if kind == "tmpfs" {
            run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(&path)]);
            return Self { kind, path, _folder: Some(folder), _image: None };
        }
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        run(&format!("mkfs.{kind}"), &["-q", text(image.path())]);
        run("mount", &["-o", "loop", text(image.path()), text(&path)]);
        Self { kind, path, _folder: Some(folder), _image: Some(image) }
    }

    /// That of an image, in this place.
    pub(crate) fn of_image(image: &Path, path: &Path) -> Self {
        run("mount", &["-o", "loop", text(image), text(path)]);
        Self { kind: "ext4", path: path.into(), _folder: None, _image: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn place(&self) -> Place {
        Place::at(&self.path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let late = Instant::now() + Duration::from_secs(10);
        while !Command::new("umount").arg(&self.path).output().is_ok_and(|output| output.status.success())
            && Instant::now() < late
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a copy needs.
pub(crate) struct Place {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) beside: PathBuf,
}

impl Place {
    /// Beneath this folder, empty.
    pub(crate) fn at(folder: &Path) -> Self {
        let [source, target, beside] = ["source", "target", "beside"].map(|name| folder.join(name));
        let place = Self { source, target, beside };
        fs::create_dir(&place.source).unwrap();
        place.clear();
        place
    }

    /// Takes away the copy.
    pub(crate) fn clear(&self) {
        for folder in [&self.target, &self.beside] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir(folder).unwrap();
        }
    }

    pub(crate) fn copy(&self) -> Result<Copied> {
        self.copy_telling(&mut |_| Ok(()))
    }

    pub(crate) fn copy_telling(&self, reached: &mut dyn FnMut(Copied) -> Result<()>) -> Result<Copied> {
        let [source, target, beside] = [&self.source, &self.target, &self.beside].map(|path| Folder::at(path).unwrap());
        let mut last = Copied::default();
        let mut reached = |copied| {
            last = copied;
            reached(copied)
        };
        TreeCopy { source: &source, target: &target, beside: &beside, over_network: false }.run(&mut reached)?;
        Ok(last)
    }
}

/// All that is to be kept of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    device: u64,
    accessed: (i64, i64),
    modified: (i64, i64),
    link: Option<PathBuf>,
    attributes: BTreeMap<OsString, Digest>,
    /// Where there is data: its start and end.
    data: Vec<(u64, u64)>,
    bytes: Digest,
    flags: u32,
    /// The first of its names.
    same_as: PathBuf,
}

/// The length and a hash of some bytes.
type Digest = (usize, u64);

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    (bytes.len(), hasher.finish())
}

/// All that is to be kept of a tree, by path.
pub(crate) fn picture(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut seen, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    let mut paths = vec![top.to_owned()];
    paths.extend(all_paths(top));
    for path in paths {
        let name = path.strip_prefix(top).unwrap().to_owned();
        let first = firsts.entry(inode(&path)).or_insert_with(|| name.clone()).clone();
        seen.insert(name, look(&path, first));
    }
    seen
}

/// Says which entries differ, and how.
pub(crate) fn assert_same(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>, what: &str) {
    for (name, seen) in one {
        assert_eq!(Some(seen), other.get(name), "{what}: {}", name.display());
    }
    for name in other.keys() {
        assert!(one.contains_key(name), "{what}: {} is one too many", name.display());
    }
}

/// All that is below, in the order of the names.
pub(crate) fn all_paths(top: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn inode(path: &Path) -> (u64, u64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

fn look(path: &Path, same_as: PathBuf) -> Seen {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let file = (kind.is_file() || kind.is_dir()).then(|| File::open(path).unwrap());
    let mut seen = Seen {
        kind: metadata.mode() & 0o170_000,
        mode: metadata.permissions().mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        size: if kind.is_dir() { 0 } else { metadata.size() },
        device: metadata.rdev(),
        // A link is read to be copied, and a folder to be looked at.
        accessed: if kind.is_symlink() || kind.is_dir() { (0, 0) } else { (metadata.atime(), metadata.atime_nsec()) },
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        link: kind.is_symlink().then(|| fs::read_link(path).unwrap()),
        attributes: attributes(path),
        data: Vec::new(),
        bytes: digest(&[]),
        flags: 0,
        same_as,
    };
    if let Some(mut file) = file {
        let flags = rustix::fs::ioctl_getflags(&file).unwrap_or(IFlags::empty());
        seen.flags = flags.intersection(IFlags::NODUMP | IFlags::NOATIME | IFlags::NOCOW).bits();
        if kind.is_file() {
            seen.data = data_of(&file, metadata.size());
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            seen.bytes = digest(&bytes);
            // Reading it may have changed that.
            let times = Timestamps {
                last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
                last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
            };
            rustix::fs::futimens(&file, &times).unwrap();
        }
    }
    seen
}

pub(crate) fn data_of(file: &File, size: u64) -> Vec<(u64, u64)> {
    let (mut data, mut at) = (Vec::new(), 0);
    while at < size {
        let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) else { break };
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        data.push((start, at));
    }
    rustix::fs::seek(file, SeekFrom::Start(0)).unwrap();
    data
}

fn attributes(path: &Path) -> BTreeMap<OsString, Digest> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut value = vec![0; 65_536];
    names
        .map(|name| {
            let name = OsString::from_vec(name.into());
            let length = rustix::fs::lgetxattr(path, &name, &mut value[..]).unwrap();
            (name, digest(&value[..length]))
        })
        .collect()
}

pub(crate) fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| {
        panic!("cannot set {name} of {}: {error}", path.display());
    });
}

/// An ACL: its entries are a tag, permissions and an id.
pub(crate) fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The ACL of a file that user 1234 may read too, with a mask that is not what the group may.
pub(crate) fn some_acl() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    acl(&[(1, 6, NOBODY), (2, 4, 1234), (4, 7, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY)])
}

/// `security.capability` of version 2: cap_net_raw, effective and permitted.
pub(crate) fn net_raw() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

pub(crate) fn set_times(path: &Path, accessed: (i64, i64), modified: (i64, i64)) {
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A name that is not UTF-8.
pub(crate) fn odd_name() -> OsString {
    OsString::from_vec(b"a\xff\xfe \n*".to_vec())
}

/// A tree with everything in it that the file system takes.
pub(crate) fn fill(top: &Path, kind: &str) {
    let path = |name: &str| top.join(name);
    fs::create_dir_all(path("a/b/empty")).unwrap();
    fs::write(path("a/file"), "words").unwrap();
    fs::write(path("a/nothing"), "").unwrap();
    fs::write(top.join("a").join(odd_name()), "odd").unwrap();
    fs::write(top.join("n".repeat(255)), "long").unwrap();
    fs::write(path("set-id"), "#!").unwrap();
    // Holes at the start, in the middle, at the end; only a hole; more than the kernel is asked for at once.
    let sparse = File::create(path("sparse")).unwrap();
    // Its length first: else XFS makes room at its end in advance.
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(&[7; 5000], 1 << 20).unwrap();
    sparse.write_all_at(&[8; 300_000], 2 << 20).unwrap();
    File::create(path("hole")).unwrap().set_len(3 << 20).unwrap();
    let large: Vec<u8> = (0..17_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(path("large"), large).unwrap();
    fs::write(path("a/linked"), "twice").unwrap();
    fs::hard_link(path("a/linked"), path("a/b/linked")).unwrap();
    fs::hard_link(path("a/linked"), path("linked")).unwrap();
    symlink("../../outside", path("a/link")).unwrap();
    symlink(OsString::from_vec(b"\xff".to_vec()), path("broken")).unwrap();
    node(&path("pipe"), FileType::Fifo, 0);
    node(&path("a/socket"), FileType::Socket, 0);
    node(&path("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node(&path("disk"), FileType::BlockDevice, rustix::fs::makedev(7, 200));
    fs::hard_link(path("pipe"), path("a/pipe")).unwrap();
    let owned = [("a/file", 1000, 2000), ("set-id", 12, 34), ("a/b", 5, 6), ("pipe", 7, 8), ("a/link", 9, 10)];
    for (name, user, group) in owned {
        std::os::unix::fs::lchown(path(name), Some(user), Some(group)).unwrap();
    }
    for name in ["a/file", "a/b", ""] {
        set(&path(name), "trusted.name", b"value");
        set(&path(name), "user.empty", b"");
        set(&path(name), "user.long", &[b'x'; 1000]);
    }
    set(&path("a/link"), "trusted.of-link", b"1");
    set(&path("a/socket"), "trusted.of-socket", b"2");
    set(&path("set-id"), "security.capability", &net_raw());
    set(&path("a/file"), "system.posix_acl_access", &some_acl());
    set(&path("a/b"), "system.posix_acl_access", &some_acl());
    set(&path("a/b"), "system.posix_acl_default", &some_acl());
    set(&path("a"), "system.posix_acl_default", &some_acl());
    let modes = [
        ("set-id", 0o6755),
        ("a/file", 0o640),
        ("a/nothing", 0),
        ("a/b/empty", 0o3770),
        ("a", 0o2711),
        ("pipe", 0o604),
    ];
    for (name, mode) in modes {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    if kind != "tmpfs" {
        let flagged = File::open(path("a/file")).unwrap();
        let flags = rustix::fs::ioctl_getflags(&flagged).unwrap();
        rustix::fs::ioctl_setflags(&flagged, flags | IFlags::NODUMP | IFlags::NOATIME).unwrap();
    }
    if kind == "btrfs" {
        let still = File::create(path("in-place")).unwrap();
        rustix::fs::ioctl_setflags(&still, IFlags::NOCOW).unwrap();
        still.write_all_at(&[3; 100_000], 0).unwrap();
    }
    for (number, path) in all_paths(top).into_iter().enumerate() {
        set_times(&path, (number as i64, 987_654_321), (-5 + number as i64, 123_456_789));
    }
    // After what was made below.
    set_times(top, (11, 12), (13, 14));
}

impl Seen {
    /// Whether all is the same but which names it has.
    pub(crate) fn same_but_names(&self, other: &Self) -> bool {
        Self { same_as: PathBuf::new(), ..self.clone() } == Self { same_as: PathBuf::new(), ..other.clone() }
    }
}
