//! open-iscsi's own records of targets, as far as its program cannot be told by a way that nobody sees: a secret is never an
//! argument.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dunnage_driver_api::{Error, Result};

use crate::chap::Chap;

/// Where a release of open-iscsi may keep them.
const FOLDERS: [&str; 2] = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];
const METHOD: &str = "node.session.auth.authmethod";
const USERNAME: &str = "node.session.auth.username";
const PASSWORD: &str = "node.session.auth.password";

/// Writes the credentials, or that there are none, into the record of a target.
///
/// # Errors
/// FailedPrecondition where open-iscsi keeps none.
pub(crate) fn settle(iqn: &str, chap: Option<&Chap>) -> Result<()> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        files(&Path::new(folder).join(iqn), &mut found)
            .map_err(|error| Error::io(format!("cannot read {folder}"), error))?;
    }
    if found.is_empty() {
        return Err(Error::precondition(format!(
            "open-iscsi has made no record of the target beneath {}: run it in the container that has that folder",
            FOLDERS.join(" or ")
        )));
    }
    for path in found {
        let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
        let text = fs::read_to_string(&path).map_err(failed)?;
        write(&path, &with(&text, chap)).map_err(failed)?;
    }
    Ok(())
}

/// A record is a file, or a folder of such.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() { files(&entry.path(), found)? } else { found.push(entry.path()) }
    }
    Ok(())
}

/// The record with these credentials and no others.
fn with(text: &str, chap: Option<&Chap>) -> String {
    const END: &str = "# END RECORD";
    let is_ours = |line: &&str| {
        [METHOD, USERNAME, PASSWORD].iter().any(|name| line.split('=').next().is_some_and(|key| key.trim() == *name))
    };
    let mut lines: Vec<String> =
        text.lines().filter(|line| !is_ours(line) && line.trim() != END).map(str::to_owned).collect();
    match chap {
        Some(Chap { username, password }) => {
            lines.push(format!("{METHOD} = CHAP"));
            lines.push(format!("{USERNAME} = {username}"));
            lines.push(format!("{PASSWORD} = {password}"));
        }
        None => lines.push(format!("{METHOD} = None")),
    }
    lines.push(END.into());
    lines.join("\n") + "\n"
}

/// Into its place in one step, for root alone.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".dunnage");
    let temporary = path.with_file_name(name);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_credentials_of_the_last_call_and_no_others() {
        let before = "# BEGIN RECORD 2.1.8\nnode.name = iqn.a\nnode.session.auth.authmethod = CHAP\n\
                      node.session.auth.username = old\nnode.session.auth.password = older\nnode.startup = manual\n# END RECORD\n";
        let chap = Chap { username: "node".into(), password: "correct-horse".into() };
        let after = with(before, Some(&chap));
        assert_eq!(
            after,
            "# BEGIN RECORD 2.1.8\nnode.name = iqn.a\nnode.startup = manual\nnode.session.auth.authmethod = CHAP\n\
             node.session.auth.username = node\nnode.session.auth.password = correct-horse\n# END RECORD\n"
        );
        let none = with(&after, None);
        assert!(none.contains("authmethod = None") && !none.contains("horse"), "{none}");
    }
}
