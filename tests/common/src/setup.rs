//! A configuration for the program, and what it says must be there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Host, Scratch};

/// The domain of a CSI name that the configuration does not give.
const DOMAIN: &str = "csi.dunnage.dev";

/// The backends and plugins of a test, each root an own folder beneath the scratch folder.
#[derive(Debug)]
pub struct Setup {
    scratch: Scratch,
    backends: Vec<(String, String)>,
    plugins: Vec<(String, Vec<String>)>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
}

impl Setup {
    /// Without a backend yet.
    ///
    /// # Errors
    /// Those of [`Scratch::new`].
    pub fn new() -> Result<Self> {
        let settings = [("node", "node-7"), ("telemetry", "{listen: off}")];
        Ok(Self {
            scratch: Scratch::new()?,
            backends: Vec::new(),
            plugins: Vec::new(),
            settings: settings.map(|(key, value)| (key.into(), value.into())).into(),
            environment: Vec::new(),
        })
    }

    /// Adds a backend with an empty root. `rest` are more of its fields, as YAML, one a line.
    ///
    /// # Errors
    /// The root cannot be made.
    pub fn backend(self, name: &str, driver: &str, rest: &str) -> Result<Self> {
        let root = self.scratch.folder(&format!("roots/{name}"))?;
        Ok(self.rootless(name, driver, &format!("root: {}\n{rest}", root.display())))
    }

    /// Adds a backend whose store is no folder. `keys` are all of its own fields, as YAML, one a line.
    #[must_use]
    pub fn rootless(mut self, name: &str, driver: &str, keys: &str) -> Self {
        let mut text = format!("  - name: {name}\n    driver: {driver}\n");
        keys.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
        self.backends.push((name.into(), text));
        self
    }

    /// Puts backends behind one name; they then have none of their own.
    #[must_use]
    pub fn plugin(mut self, csi_name: &str, backends: &[&str]) -> Self {
        self.plugins.push((csi_name.into(), backends.iter().map(ToString::to_string).collect()));
        self
    }

    /// Sets a key at the top of the configuration, over what is there.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Sets a variable in the environment of the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn environment(&self) -> &[(String, OsString)] {
        &self.environment
    }

    /// The folder that holds all of it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The root of a backend.
    pub fn root(&self, backend: &str) -> PathBuf {
        self.scratch.path().join("roots").join(backend)
    }

    /// The configuration file, once the host has been started.
    pub fn config(&self) -> PathBuf {
        self.scratch.path().join("config.yaml")
    }

    /// The socket of a plugin.
    pub fn socket(&self, csi_name: &str) -> PathBuf {
        self.scratch.path().join("sockets").join(csi_name).join("csi.sock")
    }

    /// Writes the configuration, marks the roots with `init`, starts `serve` and waits for every socket. `binary` is
    /// `env!("CARGO_BIN_EXE_dunnage")`.
    ///
    /// # Errors
    /// What the program complains of, with its log.
    pub fn start(self, binary: &str) -> Result<Host> {
        let mut host = self.prepare(binary)?;
        host.init()?;
        host.restart()?;
        Ok(host)
    }

    /// Writes the configuration and does nothing more: for a test that comes before `init` or looks at the start.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn prepare(self, binary: &str) -> Result<Host> {
        fs::write(self.config(), self.text()?).context("cannot write the configuration")?;
        Ok(Host::new(self, Path::new(binary)))
    }

    /// The CSI names it serves.
    pub(crate) fn csi_names(&self) -> Vec<String> {
        let shared = |name: &String| self.plugins.iter().any(|(_, backends)| backends.contains(name));
        let own = self.backends.iter().map(|(name, _)| name).filter(|name| !shared(name));
        let own = own.map(|name| format!("{name}.{DOMAIN}"));
        own.chain(self.plugins.iter().map(|(csi_name, _)| csi_name.clone())).collect()
    }

    fn text(&self) -> Result<String> {
        let (state, sockets) = (self.scratch.folder("state")?, self.scratch.folder("sockets")?);
        let mut text = format!("state: {}\nsockets: {}\n", state.display(), sockets.display());
        self.settings.iter().for_each(|(key, value)| text.push_str(&format!("{key}: {value}\n")));
        text.push_str("backends:\n");
        self.backends.iter().for_each(|(_, backend)| text.push_str(backend));
        if !self.plugins.is_empty() {
            text.push_str("plugins:\n");
        }
        for (csi_name, backends) in &self.plugins {
            text.push_str(&format!("  - csi_name: {csi_name}\n    backends: [{}]\n", backends.join(", ")));
        }
        Ok(text)
    }
}
