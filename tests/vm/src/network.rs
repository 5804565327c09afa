//! A network of guests alone: a switch in this process, so that it can be cut, slowed and healed.
//!
//! Each guest's card is a stream of frames over a unix socket (QEMU's `stream` back end: a length of four bytes before
//! each). What one guest sends goes to all others, unless one of the two ends is cut off. Nothing leaves the process.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The largest frame of a card without offloads, with room to spare; QEMU's own limit is larger.
const LARGEST: usize = 256 << 10;

/// A network that guests are plugged into. Its guests are reached by the names of [`Guest`](crate::Guest)s' addresses:
/// the guest with number N has 10.77.0.N.
#[derive(Debug, Clone)]
pub struct Network {
    folder: PathBuf,
    ports: Arc<Mutex<Ports>>,
}

#[derive(Debug, Default)]
struct Ports {
    plugged: BTreeMap<u8, Port>,
    delay: Duration,
    lost: u64,
}

#[derive(Debug)]
struct Port {
    frames: Sender<(Instant, Vec<u8>)>,
    cut: bool,
}

impl Network {
    /// A network without guests; its sockets are made in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ports: Arc::default() }
    }

    /// The address of a guest.
    pub fn address(number: u8) -> String {
        format!("10.77.0.{number}")
    }

    /// Takes a guest off the network: nothing reaches it, and nothing of it reaches the others.
    pub fn cut(&self, number: u8) {
        self.set(number, true);
    }

    /// Puts a guest back that was cut off.
    pub fn heal(&self, number: u8) {
        self.set(number, false);
    }

    /// Has each frame wait this long.
    pub fn slow(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// How many frames came of guests that were cut off.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn set(&self, number: u8, cut: bool) {
        if let Some(port) = self.lock().plugged.get_mut(&number) {
            port.cut = cut;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket that the card of a guest is to connect to, once. A guest that boots again gets a new one; whether it is cut
    /// off stays.
    pub(crate) fn plug(&self, number: u8) -> Result<PathBuf> {
        let path = self.folder.join(format!("{number}.sock"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let network = self.clone();
        thread::Builder::new().name(format!("port-{number}")).spawn(move || {
            // A guest that never came, or went, needs no network.
            if let Ok((stream, _)) = listener.accept() {
                let _ = network.serve(number, stream);
            }
        })?;
        Ok(path)
    }

    /// Hands the frames of one guest to the others until it is gone.
    fn serve(&self, number: u8, mut from: UnixStream) -> io::Result<()> {
        let mut to = from.try_clone()?;
        let (frames, waiting) = channel::<(Instant, Vec<u8>)>();
        let cut = self.lock().plugged.get(&number).is_some_and(|port| port.cut);
        self.lock().plugged.insert(number, Port { frames, cut });
        thread::Builder::new().name(format!("to-port-{number}")).spawn(move || {
            for (due, frame) in waiting {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&frame).is_err() {
                    return;
                }
            }
        })?;
        loop {
            let frame = read(&mut from)?;
            let mut ports = self.lock();
            if ports.plugged.get(&number).is_none_or(|port| port.cut) {
                ports.lost += 1;
                continue;
            }
            let due = Instant::now() + ports.delay;
            for (_, port) in ports.plugged.iter().filter(|(other, port)| **other != number && !port.cut) {
                // Whoever is gone gets nothing any more.
                let _ = port.frames.send((due, frame.clone()));
            }
        }
    }
}

/// One frame, with its length before it.
fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > LARGEST {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugged(network: &Network, number: u8) -> UnixStream {
        let card = UnixStream::connect(network.plug(number).unwrap()).unwrap();
        while !network.lock().plugged.contains_key(&number) {
            thread::yield_now();
        }
        card.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        card
    }

    fn send(card: &mut UnixStream, text: &[u8]) {
        card.write_all(&(text.len() as u32).to_be_bytes()).unwrap();
        card.write_all(text).unwrap();
    }

    #[test]
    fn a_frame_reaches_all_others_but_those_that_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(folder.path());
        let mut cards = [1, 2, 3].map(|number| plugged(&network, number));
        send(&mut cards[0], b"to all");
        for card in &mut cards[1..] {
            assert_eq!(&read(card).unwrap()[4..], b"to all");
        }
        network.cut(2);
        send(&mut cards[0], b"to one");
        assert_eq!(&read(&mut cards[2]).unwrap()[4..], b"to one");
        send(&mut cards[1], b"lost");
        while network.lost() == 0 {
            thread::yield_now();
        }
        network.heal(2);
        network.slow(Duration::from_millis(1));
        send(&mut cards[1], b"heard");
        // Frames of one guest stay in their order, so what was lost is not merely late.
        for number in [0, 2] {
            assert_eq!(&read(&mut cards[number]).unwrap()[4..], b"heard");
        }
        send(&mut cards[0], b"again");
        assert_eq!(&read(&mut cards[1]).unwrap()[4..], b"again");
    }
}
