//! Go, and csi-sanity built with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::session::Session;
use crate::steps::cargo_test::csi_sanity;
use crate::steps::packages::apt_install;
use crate::summary::Outcome;

/// Brought in where the machine has no Go, or one older than tests/go/go.mod asks for.
const TOOLCHAIN: &str = "go1.26.8";
const STEP: &str = "csi-sanity";

/// Builds the program that tests/go/go.mod pins as a tool.
pub(crate) fn build_csi_sanity(session: &mut Session) -> Result<Outcome> {
    let module = session.root.join("tests/go");
    let needed = fs::read_to_string(module.join("go.mod")).context("cannot read tests/go/go.mod")?;
    let needed = needed.lines().find_map(|line| line.strip_prefix("go ")).context("tests/go/go.mod names no Go")?;
    ensure_go(session, version(needed).context("tests/go/go.mod names no version of Go")?)?;
    let build = session.command("go").folder(&module).args(["build", "-mod=readonly", "-o"]);
    let build = build.args([csi_sanity(session)]).args(["github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"]);
    build.run(&session.log(STEP))?;
    Ok(Outcome::passed())
}

/// Sees to it that `go` is found and new enough, for this and every later step.
fn ensure_go(session: &mut Session, needed: (u32, u32)) -> Result<()> {
    for folder in ["/usr/local/go/bin", "/usr/lib/go/bin"] {
        if session.find("go").is_none() && Path::new(folder).join("go").is_file() {
            session.prepend_path(folder.into())?;
        }
    }
    if installed(session).is_some_and(|there| there >= needed) {
        return Ok(());
    }
    if session.find("go").is_none() {
        // Too old on Debian 12, but it can fetch and verify the toolchain that is not.
        apt_install(session, &["golang-go"], STEP)?;
    }
    fetch_toolchain(session)?;
    match installed(session) {
        Some(there) if there >= needed => Ok(()),
        there => bail!("{TOOLCHAIN} was fetched and does not work: it is {there:?}, needed is {needed:?}"),
    }
}

/// Go's toolchains are modules: any Go downloads one and checks it against the checksum database.
fn fetch_toolchain(session: &mut Session) -> Result<()> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no toolchain of Go is known for {other}: install {TOOLCHAIN} or newer"),
    };
    let module = format!("golang.org/toolchain@v0.0.1-{TOOLCHAIN}.linux-{machine}");
    let modules = session.tools.join("go");
    let go = session.command("go").folder(&session.tools).args(["mod", "download", "-modcacherw", &module]);
    // An old Go refuses variables of newer ones, which the user's environment may hold.
    go.env("GOMODCACHE", &modules).env("GOTOOLCHAIN", "local").env("GOFLAGS", "").run(&session.log(STEP))?;
    let folder = modules.join(module);
    // Modules carry no permissions.
    make_executable(&folder.join("bin"))?;
    make_executable(&folder.join("pkg/tool").join(format!("linux_{machine}")))?;
    session.prepend_path(folder.join("bin"))
}

fn make_executable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    Ok(())
}

fn installed(session: &Session) -> Option<(u32, u32)> {
    let text = session.command("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok()?;
    version(text.trim().strip_prefix("go")?)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split('.');
    let major = numbers.next()?.parse().ok()?;
    // A release candidate is `1.26rc1`.
    let minor = numbers.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_go_compare_by_number() {
        assert_eq!(version("1.25.0"), Some((1, 25)));
        assert_eq!(version("1.26rc1"), Some((1, 26)));
        assert!(version("1.9") < version("1.19.8"));
        assert_eq!(version("devel"), None);
    }
}
