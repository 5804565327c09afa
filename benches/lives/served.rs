//! The host with one backend, measured from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");

/// A serving process, ended when this is dropped.
pub(crate) struct Served {
    folder: PathBuf,
    process: Child,
}

impl Served {
    /// Starts the host in `folder`, with one backend of `driver`.
    pub(crate) fn start(driver: &str, folder: &Path) -> Result<Self> {
        let quota = if driver == "dir" { "\n    quota: none" } else { "" };
        let at = folder.display();
        let config = format!(
            "state: {at}/state\nsockets: {at}/s\nnode: bench\ntelemetry:\n  listen: \"off\"\n\
             backends:\n  - name: b\n    driver: {driver}\n    root: {at}/root{quota}\n"
        );
        let file = folder.join("dunnage.yaml");
        fs::create_dir(folder.join("root"))?;
        fs::write(&file, config)?;
        let marked = Command::new(DUNNAGE).args(["init", "--config"]).arg(&file).stdout(Stdio::null()).status()?;
        ensure!(marked.success(), "dunnage init failed");
        let process = Command::new(DUNNAGE)
            .args(["serve", "--config"])
            .arg(&file)
            .env("RUST_LOG", "warn")
            .env_remove("CSI_ENDPOINT")
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the host")?;
        Ok(Self { folder: folder.to_owned(), process })
    }

    /// Whole lives in a second. The socket is waited for by the client.
    pub(crate) fn rate(&self, workers: usize, lives: usize) -> Result<f64> {
        let output = Command::new(DUNNAGE)
            .args(["bench", "--json", "--workers", &workers.to_string(), "--lives", &lives.to_string(), "--endpoint"])
            .arg(self.folder.join("s/b.csi.dunnage.dev/csi.sock"))
            .arg("--dir")
            .arg(self.folder.join("pods"))
            .output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let phase = &report["phases"][0];
        ensure!(output.status.success(), "lives failed: {}", phase["messages"]);
        phase["per_second"].as_f64().context("the report has no rate")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Dropping cannot fail; a host that has ended already is what is wanted.
        let _gone =
            i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::TERM));
        let _status = self.process.wait();
    }
}
