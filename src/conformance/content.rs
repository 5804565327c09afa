//! What a workload writes, and what it must find again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::Kind;
use super::failure::{Checked, Stop};
use crate::client::blocking;

/// How much is written at each place.
const PIECE: usize = 64 << 10;
/// Where a block volume is written: places of one mebibyte, so that what lies between stays as it was.
pub(super) const PLACES: [u64; 3] = [0, 1 << 20, 3 << 20];

/// The content of a seed: no two seeds have a block in common.
pub(super) fn piece(seed: u64, place: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_add(1);
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.take(PIECE / 8).flat_map(u64::to_le_bytes).collect()
}

/// Writes the content of a seed through a target path, to the storage.
pub(super) async fn write(target: &Path, kind: Kind, seed: u64) -> Checked {
    let written = blocking("cannot write to", target, move |target| match kind {
        Kind::Mount => write_files(target, seed),
        Kind::Block => write_device(target, seed, &PLACES),
    });
    match written.await {
        Ok(()) => Ok(()),
        Err(error) => Err(Stop::failed("(write through the target path)", error, "a volume that can be written to")),
    }
}

/// Writes to some places of a device.
pub(super) async fn write_at(target: &Path, seed: u64, places: &'static [u64]) -> Checked {
    Ok(blocking("cannot write to", target, move |target| write_device(target, seed, places)).await?)
}

fn write_files(target: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(target.join("below"))?;
    for (name, place) in [("above", 0), ("below/file", 1)] {
        let mut file = File::create(target.join(name))?;
        file.write_all(&piece(seed, place))?;
        file.sync_all()?;
    }
    File::open(target)?.sync_all()
}

fn write_device(target: &Path, seed: u64, places: &[u64]) -> io::Result<()> {
    let mut device = OpenOptions::new().write(true).open(target)?;
    for place in places {
        device.seek(SeekFrom::Start(*place))?;
        device.write_all(&piece(seed, *place))?;
    }
    device.sync_all()
}

/// Compares what is seen through a target path with the content of a seed.
pub(super) async fn compare(target: &Path, kind: Kind, seed: u64, why: &str) -> Checked {
    let read = blocking("cannot read", target, move |target| match kind {
        Kind::Mount => differs_files(target, seed),
        Kind::Block => differs_device(target, seed),
    });
    let sent = format!("(read through {})", target.display());
    match read.await {
        Ok(None) => Ok(()),
        Ok(Some(difference)) => Err(Stop::failed(sent, difference, why)),
        Err(error) => Err(Stop::failed(sent, error, why)),
    }
}

fn differs_files(target: &Path, seed: u64) -> io::Result<Option<String>> {
    for (name, place) in [("above", 0), ("below/file", 1)] {
        match fs::read(target.join(name)) {
            Ok(found) => {
                if let Some(difference) = difference(&found, &piece(seed, place)) {
                    return Ok(Some(format!("the file {name}: {difference}")));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("there is no file {name}")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn differs_device(target: &Path, seed: u64) -> io::Result<Option<String>> {
    let mut device = File::open(target)?;
    for place in PLACES {
        let mut found = vec![0; PIECE];
        device.seek(SeekFrom::Start(place))?;
        device.read_exact(&mut found)?;
        if let Some(difference) = difference(&found, &piece(seed, place)) {
            return Ok(Some(format!("the device at {place}: {difference}")));
        }
    }
    Ok(None)
}

fn difference(found: &[u8], wanted: &[u8]) -> Option<String> {
    if found.len() != wanted.len() {
        return Some(format!("{} bytes and not {}", found.len(), wanted.len()));
    }
    let at = found.iter().zip(wanted).position(|(found, wanted)| found != wanted)?;
    Some(format!("byte {at} is {:#04x} and not {:#04x}", found[at], wanted[at]))
}

/// Whether nothing lies in a new volume.
pub(super) async fn is_new(target: &Path, kind: Kind) -> Checked {
    let read = blocking("cannot read", target, move |target| match kind {
        Kind::Mount => Ok(target.join("above").exists().then(|| "the file of an earlier volume".to_owned())),
        Kind::Block => {
            let mut device = File::open(target)?;
            let mut found = vec![0; PIECE];
            device.read_exact(&mut found)?;
            Ok(found.iter().position(|byte| *byte != 0).map(|at| format!("byte {at} is {:#04x}", found[at])))
        }
    });
    let why = "an empty volume: it was created without volume_content_source";
    match read.await? {
        None => Ok(()),
        Some(found) => Err(Stop::failed("(read through the target path of a new volume)", found, why)),
    }
}

/// Whether writing is refused.
pub(super) async fn is_readonly(target: &Path, kind: Kind) -> Checked {
    let written = blocking("cannot write to", target, move |target| match kind {
        Kind::Mount => fs::write(target.join("refused"), "must not be written"),
        Kind::Block => write_device(target, 99, &[0]),
    });
    match written.await {
        Err(_) => Ok(()),
        Ok(()) => Err(Stop::failed(
            "NodePublishVolume with readonly, and then a write through the target path",
            "it was written",
            "SP MUST publish the volume in readonly mode",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_of_two_seeds_differ_at_once() {
        assert!(difference(&piece(1, 0), &piece(1, 0)).is_none());
        assert!(difference(&piece(1, 0), &piece(2, 0)).is_some());
        assert!(difference(&piece(1, 0), &piece(1, 1)).is_some());
        assert_eq!(difference(&[0], &[0, 0]).unwrap(), "1 bytes and not 2");
    }
}
