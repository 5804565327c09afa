//! The test binaries of the workspace, and the tests in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::session::Session;

/// A test binary and the folder that its tests expect to run in.
pub(super) struct Binary {
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
}

/// Every test binary of the workspace, built.
pub(super) fn build(session: &Session, log: &Path) -> Result<Vec<Binary>> {
    let build = ["test", "--workspace", "--locked", "--no-run"];
    session.cargo().args(build).run(log)?;
    let messages = session.cargo().args(build).args(["--quiet", "--message-format", "json"]).output()?;
    let mut seen = BTreeSet::new();
    let mut binaries = Vec::new();
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message).context("cargo has sent a message that is no JSON")?;
        let Some((program, folder)) = parse(&message) else { continue };
        if seen.insert(program.clone()) {
            binaries.push(Binary { program, folder });
        }
    }
    Ok(binaries)
}

/// The binary that a message of Cargo tells of, if it is one of tests.
fn parse(message: &Value) -> Option<(PathBuf, PathBuf)> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    Some((program.into(), Path::new(message["manifest_path"].as_str()?).parent()?.into()))
}

impl Binary {
    /// Its name without the hash that Cargo adds.
    pub(super) fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
    }

    /// The names of its tests that have `part` in them.
    pub(super) fn tests(&self, session: &Session, part: &str) -> Result<Vec<String>> {
        let list = session.command(&self.program.to_string_lossy()).folder(&self.folder);
        let list = list.args([part, "--list", "--format", "terse"]).output()?;
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn test_binaries_are_told_from_all_else_that_is_built() {
        let message = |test: bool| {
            json!({"reason": "compiler-artifact", "manifest_path": "/w/a/Cargo.toml", "profile": {"test": test},
                "executable": "/w/target/debug/deps/a-1"})
        };
        assert_eq!(parse(&message(true)), Some(("/w/target/debug/deps/a-1".into(), "/w/a".into())));
        assert_eq!(parse(&message(false)), None);
        assert_eq!(parse(&json!({"reason": "build-finished", "success": true})), None);
        let binary = Binary { program: "/w/target/debug/deps/a-b-1".into(), folder: "/w".into() };
        assert_eq!(binary.name(), "a-b");
    }
}
