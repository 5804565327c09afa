//! A program to run in a guest.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A program of the machine, run inside as root, from the same path and in the same folder.
#[derive(Debug, Clone)]
pub struct Job {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Job {
    /// `program` is absolute; it runs in `folder`.
    pub fn new(program: &Path, folder: &Path) -> Self {
        Self { program: program.into(), folder: folder.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As one line of shell.
    pub(super) fn line(&self) -> Result<String> {
        let text = |path: &Path| path.to_str().map(quoted).with_context(|| format!("{path:?} is no text"));
        let mut line = format!("cd {} && exec env", text(&self.folder)?);
        for (name, value) in &self.environment {
            line.push_str(&format!(" {name}={}", quoted(value)));
        }
        line.push_str(&format!(" {}", text(&self.program)?));
        for argument in &self.arguments {
            line.push_str(&format!(" {}", quoted(argument)));
        }
        ensure!(!line.contains('\n'), "a job is one line: {line:?}");
        Ok(line)
    }
}

impl Display for Job {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{name} {}", self.arguments.join(" "))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        let job = Job::new("/a b/it's".as_ref(), "/c".as_ref()).args(["$x", "*"]).env("A", "1 2");
        assert_eq!(job.line().unwrap(), r"cd '/c' && exec env A='1 2' '/a b/it'\''s' '$x' '*'");
        assert!(Job::new("/a".as_ref(), "/".as_ref()).args(["b\nc"]).line().is_err());
    }
}
