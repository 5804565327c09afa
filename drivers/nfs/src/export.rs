//! The export: how it is mounted, and how a volume of it is.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, MountSource, Mounts, Questions, Result};
use rustix::io::Errno;

use crate::config::{Nfs, OF_A_MOUNT, Version};
use crate::paths::VolumePath;
use crate::{VOLUMES, config};

/// How long the server may take until the export is mounted.
const MOUNTED: Duration = Duration::from_secs(15);
/// The kernel's name for every version of NFS.
const FS_TYPE: &str = "nfs";

/// How long a look into the export may take: its calls mostly fail before, but who wants the state of a session back may wait
/// for longer.
const LOOKED: Duration = Duration::from_secs(20);

/// An export of a server, from this node.
pub(crate) struct Export {
    config: Nfs,
    mounts: Arc<dyn Mounts>,
    questions: Arc<Questions<()>>,
}

impl Export {
    pub(crate) fn new(config: Nfs, mounts: Arc<dyn Mounts>) -> Self {
        Self { config, mounts, questions: Arc::default() }
    }

    /// It as it is written: `server:/export`.
    pub(crate) fn shown(&self) -> String {
        let server = &self.config.server;
        let server = if server.contains(':') { format!("[{server}]") } else { server.clone() };
        match self.config.export.trim_end_matches('/') {
            "" => format!("{server}:/"),
            export => format!("{server}:{export}"),
        }
    }

    /// Mounts it, attached nowhere, so that this process can look into it. Its calls fail after 15 seconds without an
    /// answer: what is done here is made durable step by step, and each step may be repeated. Nothing is taken from what
    /// the kernel remembers of names, since other machines change them.
    ///
    /// # Errors
    /// Where the server does not answer, or does not let this node have it.
    pub(crate) fn mount(&self) -> Result<Folder> {
        let mut source = self.source(self.shown())?.with_flag("softerr");
        source = source.with_option("timeo", "50").with_option("retrans", "1").with_option("lookupcache", "none");
        let source = with_words(source, self.config.connection_options());
        // A mount is a handle alone, which cannot be read.
        let mount = Folder::new(self.mounts.mount(&source, MOUNTED)?, self.shown());
        mount.reopen().map_err(mount.failed("open", ""))
    }

    /// Looks into the export by `look`, on a thread that may be given up on. It changes nothing of a volume. Where the root
    /// was lost it opens that anew, as any call does: the holder is written then, and what creates left is looked for.
    ///
    /// # Errors
    /// Those of `look`; where there is no answer in time, or one is owed still.
    pub(crate) fn look<T: Send + 'static>(&self, look: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.questions.ask(&(), LOOKED, look)?.unwrap_or_else(|| {
            Err(Error::internal(format!(
                "the server of {} does not answer: see whether it runs, and the network between",
                self.shown()
            )))
        })
    }

    /// How a volume is mounted whose folder has this inode number.
    ///
    /// # Errors
    /// Where the name of the server has no address.
    pub(crate) fn volume(&self, path: &VolumePath, inode: u64) -> Result<MountSource> {
        let top = self.shown();
        let source = self.source(format!("{}/{VOLUMES}/{path}", top.trim_end_matches('/')))?;
        let source = with_words(source, self.config.options.iter().map(String::as_str));
        Ok(source.allowing(OF_A_MOUNT).with_inode(inode))
    }

    fn source(&self, shown: String) -> Result<MountSource> {
        let config::Nfs { version, port, .. } = &self.config;
        let version = match version {
            Version::V4_1 => "4.1",
            Version::V4_2 => "4.2",
        };
        let source = MountSource::new(FS_TYPE, shown).with_option("vers", version);
        Ok(source.with_option("addr", self.address()?).with_option("port", port.to_string()))
    }

    /// The address of the server: the kernel knows no names.
    fn address(&self) -> Result<String> {
        let Nfs { server, port, .. } = &self.config;
        if let Ok(address) = server.parse::<IpAddr>() {
            return Ok(address.to_string());
        }
        // The address of an interface has its name after it, which the resolver reads.
        let found = (server.as_str(), *port).to_socket_addrs().map_err(|error| {
            Error::io(format!("the server {server} has no address: correct `server`, or the name service"), error)
        })?;
        let address =
            found.into_iter().next().ok_or_else(|| Error::internal(format!("the server {server} has no address")))?;
        Ok(match address {
            SocketAddr::V6(address) if address.scope_id() != 0 => format!("{}%{}", address.ip(), address.scope_id()),
            address => address.ip().to_string(),
        })
    }
}

fn with_words<'a>(source: MountSource, words: impl Iterator<Item = &'a str>) -> MountSource {
    words.fold(source, |source, word| match word.split_once('=') {
        Some((word, value)) => source.with_option(word, value),
        None => source.with_flag(word),
    })
}

/// Whether an error says that what was opened is not there any more, as after the server's disk was replaced.
pub(crate) fn is_stale(error: &Error) -> bool {
    comes_from(error, &[Errno::STALE])
}

/// Whether an error says that the server could not be reached, or has forgotten this client.
pub(crate) fn is_away(error: &Error) -> bool {
    comes_from(
        error,
        &[
            Errno::TIMEDOUT,
            Errno::CONNREFUSED,
            Errno::CONNRESET,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::NETDOWN,
            Errno::NOTCONN,
            Errno::PIPE,
            Errno::STALE,
        ],
    )
}

fn comes_from(error: &Error, numbers: &[Errno]) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let number = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
        if number.is_some_and(|number| numbers.contains(&number)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What is wrong where the server takes root for nobody, and the remedy.
pub(crate) fn squash(folder: &Folder) -> Option<(String, String)> {
    let owner = folder.stat(VOLUMES).ok()?.st_uid;
    let own = rustix::process::geteuid().as_raw();
    (owner != own).then(|| {
        (
            format!(
                "what is made in {} belongs to user {owner}: the server squashes root, so that files of other users cannot \
                 be removed when their volume is deleted, and fsGroup does not work",
                folder.path().display()
            ),
            "export it with no_root_squash to all nodes".to_owned(),
        )
    })
}
