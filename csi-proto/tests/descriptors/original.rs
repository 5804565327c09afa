//! Finds the original protos, which their projects publish as Go modules.

use std::path::{Path, PathBuf};
use std::process::Command;

const REMEDY: &str = "install Go, or name the folder of the module in";

/// A proto in a Go module.
pub(crate) struct Original {
    module: &'static str,
    version: &'static str,
    /// The folder of the proto beneath the module's.
    folder: &'static str,
    pub(crate) file: &'static str,
    /// The environment variable that names the module's folder, where there is no Go.
    variable: &'static str,
}

pub(crate) const CSI: Original = Original {
    module: "github.com/container-storage-interface/spec",
    version: "v1.13.0",
    folder: "",
    file: "csi.proto",
    variable: "DUNNAGE_CSI_SPEC_DIR",
};

pub(crate) const PLUGIN_REGISTRATION: Original = Original {
    module: "k8s.io/kubelet",
    version: "v0.34.0",
    folder: "pkg/apis/pluginregistration/v1",
    file: "api.proto",
    variable: "DUNNAGE_KUBELET_DIR",
};

impl Original {
    /// The folder that holds the proto, or a sentence why there is none.
    pub(crate) fn folder(&self) -> Result<PathBuf, String> {
        let (file, variable) = (self.file, self.variable);
        let module = match std::env::var_os(variable) {
            Some(named) => PathBuf::from(named),
            None => self
                .cached()
                .or_else(|_| self.download())
                .map_err(|why| format!("no original of {}: {why}; {REMEDY} {variable}", self.id()))?,
        };
        let folder = module.join(self.folder);
        if folder.join(file).is_file() {
            return Ok(folder);
        }
        Err(format!("no {file} in {}: {REMEDY} {variable}", folder.display()))
    }

    fn id(&self) -> String {
        format!("{}@{}", self.module, self.version)
    }

    /// Asked for first, since a download may consult the network even for what is there.
    fn cached(&self) -> Result<PathBuf, String> {
        let cache = go(&["env", "GOMODCACHE"], Path::new("."))?;
        let module = Path::new(cache.trim()).join(self.id());
        module.is_dir().then_some(module).ok_or_else(|| format!("{} is not cached", self.id()))
    }

    fn download(&self) -> Result<PathBuf, String> {
        // Outside any module, or Go would want this one to be in its go.mod.
        let nowhere = tempfile::tempdir().map_err(|e| e.to_string())?;
        let answer = go(&["mod", "download", "-json", &self.id()], nowhere.path())?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        match answer["Dir"].as_str() {
            Some(module) => Ok(module.into()),
            None => Err(format!("no folder in the answer for {}: {answer}", self.id())),
        }
    }
}

fn go(arguments: &[&str], folder: &Path) -> Result<String, String> {
    let output = Command::new("go").args(arguments).current_dir(folder).output();
    let output = output.map_err(|e| format!("go does not start: {e}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("go {} failed: {stdout}{stderr}", arguments.join(" ")))
}
