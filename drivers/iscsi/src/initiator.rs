//! The initiator: open-iscsi logs in and stays to log in again when a connection breaks; sysfs tells of all sessions.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dunnage_driver_api::{Command, Commands, Context, Error, ErrorKind, NodeId, Output, Result, Tool};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::chap::Chap;
use crate::config::Iscsi;
use crate::sessions::{Session, Unit};
use crate::wanted::{LoggedIn, Wanted};
use crate::{names, records};

/// open-iscsi's program.
pub(crate) const ISCSIADM: Tool = Tool { program: "iscsiadm", package: "open-iscsi" };

/// Nothing in sysfs can be waited for.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a new size is waited for.
const GROWN: Duration = Duration::from_secs(3);
/// How long one connection may take.
const KNOCK: Duration = Duration::from_secs(5);

/// What iscsiadm ends with.
mod ended {
    pub(super) const EXISTS: i32 = 15;
    pub(super) const NO_RECORD: i32 = 21;
    pub(super) const REFUSED: i32 = 24;
}

/// How this node logs in.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    initiator: String,
    /// The name of our own settings of how this node logs in: as which initiator, which need not be the node's own one.
    iface: String,
    loss_seconds: u32,
    keep_alive_seconds: u32,
}

impl Options {
    pub(crate) fn new(config: &Iscsi, node: &NodeId) -> Self {
        Self {
            initiator: names::initiator(node),
            iface: names::iface(node),
            loss_seconds: config.loss_seconds,
            keep_alive_seconds: config.keep_alive_seconds,
        }
    }
}

/// The initiator of this node.
#[derive(Debug, Clone)]
pub(crate) struct Initiator {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Initiator {
    fn default() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into() }
    }
}

impl Initiator {
    /// The device of a unit, once this node is logged in to its target; with its name.
    ///
    /// # Errors
    /// FailedPrecondition where the target cannot be reached, and where what is found is not the unit that is wanted;
    /// PermissionDenied where the target does not let this node in.
    pub(crate) fn bring(
        &self,
        cx: &Context,
        wanted: &Wanted,
        options: &Options,
        chap: Option<&Chap>,
        until: Instant,
    ) -> Result<(File, PathBuf)> {
        if self.is_logged_in(wanted, until)? {
            // What a unit says of itself the kernel has asked once, when it found it: it may be another one by now.
            for session in Session::all_of(&self.sys, &wanted.iqn)? {
                session.units()?.iter().filter(|unit| unit.lun == wanted.lun).try_for_each(Unit::rescan)?;
            }
            return self.find(wanted, until);
        }
        knock(wanted, until)?;
        let is_new = login(&*cx.commands, wanted, options, chap)?;
        self.find(wanted, until).inspect_err(|_| {
            if is_new {
                // Nobody else uses the session that was made just now. The first error says more than that it stays.
                let _ = self.end(cx, &wanted.iqn, cx.deadline);
            }
        })
    }

    /// The device of a unit of a target that this node is logged in to.
    fn find(&self, wanted: &Wanted, until: Instant) -> Result<(File, PathBuf)> {
        let mut has_scanned = false;
        loop {
            let sessions = Session::all_of(&self.sys, &wanted.iqn)?;
            let mut units = Vec::new();
            for session in &sessions {
                units.extend(session.units()?.into_iter().filter(|unit| unit.lun == wanted.lun));
            }
            match units.as_slice() {
                [unit] if unit.is(&wanted.unit) => {
                    if let Some(opened) = self.open(unit, wanted)? {
                        return Ok(opened);
                    }
                }
                [unit] => return Err(another(wanted, unit)),
                [] if !has_scanned => {
                    sessions.iter().for_each(|session| session.scan(&self.sys));
                    has_scanned = true;
                }
                [] => {}
                [_, _, ..] => {
                    return Err(Error::precondition(
                        "there are several sessions with the target: paths are not put together, leave one",
                    )
                    .with("iqn", &wanted.iqn));
                }
            }
            if Instant::now() >= until {
                return Err(Error::precondition(format!(
                    "the target at {} shows this node no LUN {}",
                    wanted.portal, wanted.lun
                ))
                .with("iqn", &wanted.iqn)
                .retry(true));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Whether there is a session already; one that is being made again is waited for.
    fn is_logged_in(&self, wanted: &Wanted, until: Instant) -> Result<bool> {
        loop {
            let sessions = Session::all_of(&self.sys, &wanted.iqn)?;
            if sessions.iter().any(|session| session.state == "LOGGED_IN") {
                return Ok(true);
            }
            let Some(session) = sessions.first() else { return Ok(false) };
            if Instant::now() >= until {
                return Err(Error::precondition(format!(
                    "{} with the target of the volume is {}: see to the network, and to the target at {}",
                    session.name, session.state, wanted.portal
                ))
                .with("iqn", &wanted.iqn)
                .retry(true));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Opens the device of a unit and proves that it is that one's; nothing where it is not there yet, or any more.
    fn open(&self, unit: &Unit, wanted: &Wanted) -> Result<Option<(File, PathBuf)>> {
        let path = self.dev.join(&unit.kernel);
        let device = match File::open(&path) {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::NODEV)) => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot open {}", path.display()), error)),
        };
        let stat = rustix::fs::fstat(&device)
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        let number = format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        // Asked again while it is open, when its number stays its own.
        let is_it = unit.again()?.is_some_and(|now| now.number == number && now.is(&wanted.unit));
        Ok(is_it.then_some((device, path)))
    }

    /// Logs out of the target of a unit that nobody on this node uses any more. Succeeds where there is no session.
    ///
    /// A session stays that shows another unit, which is another volume's, and one that somebody else has made.
    ///
    /// # Errors
    /// FailedPrecondition where the unit is in use.
    pub(crate) fn logout(&self, cx: &Context, held: &LoggedIn, until: Instant) -> Result<()> {
        for session in &Session::all_of(&self.sys, &held.iqn)? {
            let units = session.units()?;
            let is_other = |unit: &Unit| unit.lun != held.lun || !unit.is(&held.unit);
            if !names::is_ours(&session.initiator) || units.iter().any(is_other) {
                return Ok(());
            }
            units.iter().try_for_each(|unit| self.refuse_used(unit))?;
        }
        self.end(cx, &held.iqn, until)
    }

    fn end(&self, cx: &Context, iqn: &str, until: Instant) -> Result<()> {
        let sessions = Session::all_of(&self.sys, iqn)?;
        let of_target = || command("node").args(["--targetname", iqn]);
        if !sessions.is_empty() {
            let out = of_target().arg("--logout");
            run(&*cx.commands, &out, &[ended::NO_RECORD])?;
        }
        while !Session::all_of(&self.sys, iqn)?.is_empty() {
            if Instant::now() >= until {
                return Err(Error::precondition("the kernel has not ended the session yet")
                    .with("iqn", iqn)
                    .retry(true));
            }
            std::thread::sleep(AGAIN);
        }
        // With its secret.
        run(&*cx.commands, &of_target().args(["--op", "delete"]), &[ended::NO_RECORD])
    }

    fn refuse_used(&self, unit: &Unit) -> Result<()> {
        let path = self.dev.join(&unit.kernel);
        let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
        let opened = File::options().read(true).custom_flags(exclusive).open(&path);
        if opened.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::BUSY)) {
            return Err(Error::precondition(format!(
                "{} is still in use on this node: unmount it everywhere, and end programs that hold it",
                path.display()
            ))
            .retry(true));
        }
        Ok(())
    }

    /// Has the kernel ask how large the units of a target are now, and waits for what it says.
    ///
    /// # Errors
    /// FailedPrecondition where there is none.
    pub(crate) fn refresh(&self, iqn: &str, until: Instant) -> Result<()> {
        let units = || -> Result<Vec<Unit>> {
            let mut units = Vec::new();
            for session in Session::all_of(&self.sys, iqn)? {
                units.extend(session.units()?);
            }
            Ok(units)
        };
        let sizes = |units: &[Unit]| units.iter().map(|unit| unit.sectors.clone()).collect::<Vec<_>>();
        let before = units()?;
        if before.is_empty() {
            return Err(Error::precondition("the volume's device is gone: unstage the volume and stage it again"));
        }
        before.iter().try_for_each(Unit::rescan)?;
        let until = until.min(Instant::now() + GROWN);
        // The kernel may have known the new size before.
        while sizes(&units()?) == sizes(&before) && Instant::now() < until {
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

/// Finds out in short time whether anybody listens: a login tries for minutes.
fn knock(wanted: &Wanted, until: Instant) -> Result<()> {
    let within = until.saturating_duration_since(Instant::now()).min(KNOCK).max(Duration::from_millis(100));
    TcpStream::connect_timeout(&wanted.portal, within).map(drop).map_err(|error| {
        Error::precondition(format!(
            "the target of the volume cannot be reached at {}: see to the network, and to the target",
            wanted.portal
        ))
        .caused_by(error)
        .retry(true)
    })
}

fn command(mode: &str) -> Command {
    ISCSIADM.command().args(["--mode", mode]).timeout(Duration::from_secs(60))
}

/// Whether it made the session; where it did not, somebody else has just done so.
fn login(commands: &dyn Commands, wanted: &Wanted, options: &Options, chap: Option<&Chap>) -> Result<bool> {
    let iface = || command("iface").args(["--interface", &options.iface]);
    run(commands, &iface().args(["--op", "new"]), &[ended::EXISTS])?;
    let name = ["--op", "update", "--name", "iface.initiatorname", "--value", &options.initiator];
    run(commands, &iface().args(name), &[])?;
    let portal = wanted.portal.to_string();
    let node =
        || command("node").args(["--targetname", &wanted.iqn, "--portal", &portal, "--interface", &options.iface]);
    run(commands, &node().args(["--op", "new"]), &[ended::EXISTS])?;
    let (loss, alive) = (options.loss_seconds.to_string(), options.keep_alive_seconds.to_string());
    for (name, value) in [
        ("node.startup", "manual"),
        ("node.session.initial_login_retry_max", "2"),
        ("node.conn[0].timeo.login_timeout", "10"),
        ("node.session.timeo.replacement_timeout", loss.as_str()),
        ("node.conn[0].timeo.noop_out_interval", alive.as_str()),
        ("node.conn[0].timeo.noop_out_timeout", alive.as_str()),
    ] {
        run(commands, &node().args(["--op", "update", "--name", name, "--value", value]), &[])?;
    }
    records::settle(&wanted.iqn, chap)?;
    let login = node().arg("--login");
    let output = commands.run(&login)?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(ended::EXISTS) => Ok(false),
        Some(ended::REFUSED) => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the target at {} does not let this node in as {}: {}",
                wanted.portal,
                options.initiator,
                if chap.is_some() {
                    "the secret of the volume is not the one that it was attached with, or the attachment has ended"
                } else {
                    "the attachment has ended, or the target wants a secret (node-stage-secret-name of the class)"
                }
            ),
        )
        .with("iqn", &wanted.iqn)),
        _ => failed(output, &login).map(|()| false),
    }
}

fn run(commands: &dyn Commands, command: &Command, fine: &[i32]) -> Result<()> {
    let output = commands.run(command)?;
    if output.status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    failed(output, command)
}

fn failed(output: Output, command: &Command) -> Result<()> {
    output.success(command).map(drop).map_err(|error| {
        Error::precondition("open-iscsi cannot do it: is iscsid running on the node, and /etc/iscsi writable?")
            .caused_by(error)
            .retry(true)
    })
}

fn another(wanted: &Wanted, found: &Unit) -> Error {
    Error::precondition(format!(
        "the target at {} has another unit there than the volume's: wanted is {:?}, there is {}; nothing of it is touched",
        wanted.portal,
        wanted.unit,
        found.identity()
    ))
    .with("iqn", &wanted.iqn)
}

/// Where sysfs and the devices are, for a test.
#[cfg(test)]
impl Initiator {
    fn of(sys: &std::path::Path, dev: &std::path::Path) -> Self {
        Self { sys: sys.to_owned(), dev: dev.to_owned() }
    }
}

#[cfg(test)]
mod tests;
