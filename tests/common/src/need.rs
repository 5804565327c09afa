//! What a test cannot do without.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Something that a machine may lack.
#[derive(Debug, Clone)]
pub enum Need {
    /// To be uid 0 with the rights of the machine's root.
    Root,
    /// That an ordinary user may make a user namespace.
    UserNamespaces,
    /// The guest with a stock Debian kernel: for tests in a module `in_guest`, which `cargo xtask test` runs there alone.
    Guest,
    /// A kernel for guests, and what they are made with: for tests in a module `across_guests`, which `cargo xtask test`
    /// runs one after the other.
    Guests,
    /// A kernel of at least this version, for what an earlier one does not do.
    Linux(u32, u32),
    /// A program in `PATH`, or in one of the folders of the system's own programs.
    Program(&'static str),
    /// A file that somebody must have made before, and the command that makes it.
    File(PathBuf, &'static str),
}

impl Need {
    /// Why it is not met; nothing where it is.
    fn lack(&self) -> Option<String> {
        match self {
            Self::Root if rustix::process::geteuid().is_root() => None,
            Self::Root => Some("it needs root".into()),
            Self::UserNamespaces => no_user_namespaces(),
            Self::Guest if std::env::var_os("DUNNAGE_GUEST").is_some() => None,
            Self::Guest => Some("it is for the guest of `cargo xtask vm`".into()),
            Self::Guests if std::env::var_os("DUNNAGE_GUESTS").is_some() => None,
            Self::Guests => Some("it boots guests, for which `cargo xtask vm` prepares a kernel".into()),
            Self::Linux(major, minor) if linux() >= (*major, *minor) => None,
            Self::Linux(major, minor) => Some(format!("it needs Linux {major}.{minor}")),
            Self::Program(program) if in_path(program) => None,
            Self::Program(program) => Some(format!("there is no program {program}")),
            Self::File(path, _) if path.exists() => None,
            Self::File(path, remedy) => Some(format!("there is no {}; {remedy} makes it", path.display())),
        }
    }
}

/// A user of no rights, for what must work without any.
pub const NOBODY: u32 = 1000;

fn no_user_namespaces() -> Option<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "true"]).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        unshare.uid(NOBODY).gid(NOBODY);
    }
    match unshare.status() {
        Ok(status) if status.success() => None,
        Ok(_) => {
            Some("an ordinary user may make no user namespace (kernel.unprivileged_userns_clone, apparmor)".into())
        }
        Err(error) => Some(format!("unshare cannot be started: {error}")),
    }
}

fn linux() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(Path::new(program)).is_file())
}

/// Whether `test` can run here. Where it cannot, it is named on the standard error with the reason, and should pass;
/// with `DUNNAGE_REQUIRE_ALL=1` in the environment it should fail, which the error tells.
///
/// # Errors
/// Something is lacking, and everything is required.
pub fn can_run(test: &str, needs: &[Need]) -> anyhow::Result<bool> {
    let lacks: Vec<_> = needs.iter().filter_map(Need::lack).collect();
    if lacks.is_empty() {
        return Ok(true);
    }
    let text = format!("{test} could not run: {}", lacks.join(", "));
    anyhow::ensure!(std::env::var_os("DUNNAGE_REQUIRE_ALL").is_none_or(|value| value != "1"), text);
    // Not by `eprintln`, which the test harness keeps to itself where a test passes.
    writeln!(std::io::stderr().lock(), "SKIPPED: {text}")?;
    Ok(false)
}
