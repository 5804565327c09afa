//! Where a demo lives: one folder that holds the configuration, the state, the sockets, the roots and the pods' paths.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use dunnage_driver_api::{FsType, Tool};
use tempfile::TempDir;

use crate::client::Endpoint;
use crate::demo::Footing;

const MKFS: Tool = FsType::Ext4.mkfs();

/// The drivers that it shows.
pub const SHOWN: [&str; 2] = [DIR, IMAGE];
const DIR: &str = "dir";
const IMAGE: &str = "image";

/// A backend of the demo, and the plugin in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The backend's name.
    pub name: &'static str,
    /// Its driver.
    pub driver: &'static str,
    /// What a reader should know it as.
    pub what: &'static str,
    /// Where its storage lies.
    pub root: PathBuf,
    /// Its plugin's socket.
    pub socket: PathBuf,
}

/// The folder of a demo, removed when it is dropped.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    served: Vec<Served>,
    without: Option<String>,
}

impl Place {
    /// Makes the folder in the temporary folder of the environment, and the configuration in it: `dir`, and `image` where
    /// this machine lets it work, as far as they are among `drivers`.
    ///
    /// # Errors
    /// Where the folder cannot be made or written.
    pub fn make(footing: Footing, drivers: &[&str]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunnage-demo-").tempdir()?;
        let backend = |name, driver, what| Served {
            name,
            driver,
            what,
            root: folder.path().join(name),
            socket: folder.path().join(format!("sockets/{name}.csi.dunnage.dev/csi.sock")),
        };
        let (mut served, mut without) = (Vec::new(), None);
        if drivers.contains(&DIR) {
            served.push(backend("folders", DIR, "folders of a file system"));
        }
        if drivers.contains(&IMAGE) {
            without = why_no_image(footing);
            if without.is_none() {
                served.push(backend("disks", IMAGE, "files as disks"));
            }
        }
        if served.is_empty() {
            return Err(io::Error::other(
                without.unwrap_or_else(|| "none of the drivers that it shows is here".into()),
            ));
        }
        for folder in served.iter().map(|backend| backend.root.as_path()).chain([&*folder.path().join("pods")]) {
            fs::create_dir(folder)?;
        }
        let place = Self { folder, served, without };
        fs::write(place.config(), place.config_text())?;
        Ok(place)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder().join("dunnage.yaml")
    }

    /// Where the paths of a volume's pods are.
    pub fn pods(&self, volume: &str) -> PathBuf {
        self.folder().join("pods").join(volume)
    }

    /// What is served.
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// Why a driver is left out, if one is.
    pub fn without(&self) -> Option<&str> {
        self.without.as_deref()
    }

    /// Keeps the folder when the demo is over.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Removes the folder, which tells whether it could be.
    pub fn remove(self) -> io::Result<()> {
        self.folder.close()
    }

    fn config_text(&self) -> String {
        let folder = self.folder().display();
        let backends: String = self
            .served
            .iter()
            .map(|backend| {
                let quota = if backend.driver == DIR { "\n    quota: none" } else { "" };
                let (name, driver, root) = (backend.name, backend.driver, backend.root.display());
                format!("  - name: {name}\n    driver: {driver}\n    root: {root:?}{quota}\n", root = root.to_string())
            })
            .collect();
        format!(
            "state: \"{folder}/state\"\nsockets: \"{folder}/sockets\"\nnode: demo\ntelemetry:\n  listen: \"off\"\nbackends:\n{backends}"
        )
    }
}

impl Served {
    /// The plugin's socket as an endpoint.
    ///
    /// # Errors
    /// Where the path is longer than a socket's may be: a long `TMPDIR`.
    pub fn endpoint(&self) -> Result<Endpoint, crate::client::BadEndpoint> {
        Endpoint::at(&self.socket)
    }
}

/// Why files cannot be made disks of this machine here.
fn why_no_image(footing: Footing) -> Option<String> {
    if footing != Footing::Root {
        return Some("image needs root: loop devices and ext4 belong to the machine".to_owned());
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/loop-control") {
        return Some(format!("image needs loop devices, and /dev/loop-control cannot be opened: {error}"));
    }
    let missing = || format!("image needs {}: install {}", MKFS.program, MKFS.package);
    MKFS.find().is_none().then(missing)
}
