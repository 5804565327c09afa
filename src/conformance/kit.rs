//! What a case has in its hands.

use std::collections::HashSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunnage_csi_proto::csi::v1::{DeleteSnapshotRequest, DeleteVolumeRequest, Topology};
use tonic::{Code, Status};

use super::failure::{Checked, Stop};
use super::started::Started;
use super::undo::{Tracked, Undo, delete_group};
use super::{Kind, Params};
use crate::client::{Call, Plugin, code_name};

/// How long a call may answer ABORTED, as it may while another one is pending.
const PENDING: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(5);

/// A plugin, what is known of it, and what was made in it.
pub(super) struct Kit {
    plugin: Mutex<Plugin>,
    params: Params,
    kinds: HashSet<Kind>,
    folder: tempfile::TempDir,
    run: String,
    serial: AtomicU64,
    undo: Mutex<Vec<Undo>>,
    last: Mutex<String>,
    dead: AtomicBool,
    started: Option<Started>,
    pub(super) chance: super::started::Chance,
    pub(super) before: super::cases::Before,
}

/// A field of a request, and what takes it away.
pub(super) type Field<C> = (&'static str, fn(&mut C));

/// An answer with the request that it is for.
#[derive(Debug, Clone)]
pub(super) struct Answered<C: Call> {
    pub(super) request: C,
    pub(super) answer: C::Answer,
}

impl<C: Call> Deref for Answered<C> {
    type Target = C::Answer;

    fn deref(&self) -> &C::Answer {
        &self.answer
    }
}

impl<C: Tracked> Answered<C> {
    /// Fails the case where the answer differs from an earlier one.
    pub(super) fn same_as(&self, earlier: &C::Answer, wants: impl std::fmt::Display) -> Checked {
        if C::same(earlier, &self.answer) {
            return Ok(());
        }
        let came = format_args!("{:?}, and before {earlier:?}", self.answer);
        Err(Stop::failed(format_args!("{} {:?}", C::NAME, self.request), came, wants))
    }
}

impl<C: Call> Answered<C> {
    /// Fails the case unless `holds`.
    pub(super) fn must(&self, holds: bool, wants: impl std::fmt::Display) -> Checked {
        if holds { Ok(()) } else { Err(self.wrong(wants)) }
    }

    pub(super) fn wrong(&self, wants: impl std::fmt::Display) -> Stop {
        Stop::failed(format_args!("{} {:?}", C::NAME, self.request), format_args!("{:?}", self.answer), wants)
    }
}

fn came(status: &Status) -> String {
    format!("{}: {}", code_name(status.code()), status.message())
}

impl Kit {
    pub(super) fn new(plugin: Plugin, params: Params, started: Option<Started>, seed: u64) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("csi-").tempdir_in(&params.folder)?;
        Ok(Self {
            plugin: Mutex::new(plugin),
            params,
            kinds: HashSet::new(),
            run: folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            folder,
            serial: AtomicU64::new(0),
            undo: Mutex::default(),
            last: Mutex::default(),
            dead: AtomicBool::new(false),
            started,
            chance: super::started::Chance::new(seed),
            before: super::cases::Before::default(),
        })
    }

    pub(super) fn plugin(&self) -> Plugin {
        self.plugin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace_plugin(&self, plugin: Plugin) {
        *self.plugin.lock().unwrap_or_else(PoisonError::into_inner) = plugin;
    }

    pub(super) fn started(&self) -> Option<&Started> {
        self.started.as_ref()
    }

    /// What was sent last, for a plugin that ended by it.
    pub(super) fn last_call(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plugin has ended, and does not start again.
    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn may_kill(&self) -> bool {
        self.started.is_some()
    }

    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn set_kinds(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        self.kinds = kinds.into_iter().collect();
    }

    pub(super) fn uses(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The kind of volume for a case to which it does not matter.
    pub(super) fn kind(&self) -> Kind {
        if self.uses(Kind::Block) && !self.uses(Kind::Mount) { Kind::Block } else { Kind::Mount }
    }

    /// Where volumes are asked for.
    pub(super) fn topology(&self) -> Option<Topology> {
        match self.params.topology.is_empty() {
            true => self.plugin().offers().topology.clone(),
            false => Some(Topology { segments: self.params.topology.clone() }),
        }
    }

    /// A name that nothing else has.
    pub(super) fn name(&self, what: &str) -> String {
        format!("{}-{}-{what}", self.run, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// A folder that nothing else has; it is not made.
    pub(super) fn place(&self) -> PathBuf {
        self.folder().join(self.serial.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(super) fn noted(&self) -> MutexGuard<'_, Vec<Undo>> {
        self.undo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, undo: Undo) {
        let mut noted = self.noted();
        if !noted.contains(&undo) {
            noted.push(undo);
        }
    }

    /// The request with the secrets that were given for its RPC.
    fn complete<C: Call>(&self, mut request: C) -> C {
        if let (Some(own), Some(given)) = (request.secrets(), self.params.secrets.of(C::NAME)) {
            own.clone_from(given);
        }
        request
    }

    /// Sends a request, and notes what it leaves.
    pub(super) async fn send<C: Tracked>(&self, request: C) -> Result<C::Answer, Status> {
        let request = self.complete(request);
        request.begun().into_iter().for_each(|undo| self.note(undo));
        if self.may_kill() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = format!("{} {request:?}", C::NAME);
        }
        let answer = self.plugin().send(request.clone()).await;
        match &answer {
            Ok(answer) => request.done(answer, &mut self.noted()),
            // The plugin may have gone in the middle, or go on with it.
            Err(status) if in_the_background(status.code()) => {
                request.unanswered().into_iter().for_each(|undo| self.note(undo));
            }
            Err(_) => {}
        }
        answer
    }

    /// Sends a request that the plugin must do.
    pub(super) async fn ok<C: Tracked>(&self, request: C) -> Checked<Answered<C>> {
        match self.send(request.clone()).await {
            Ok(answer) => Ok(Answered { request, answer }),
            Err(status) => {
                // It may be no fault of the plugin's, and then nobody finds it in its code.
                let wants = match status.code() {
                    Code::ResourceExhausted => {
                        "OK: give the plugin a store with more room, or the suite a smaller `size` by --params"
                    }
                    _ => "OK",
                };
                Err(Stop::failed(format_args!("{} {request:?}", C::NAME), came(&status), wants))
            }
        }
    }

    /// The same for a request that may meet one of its own that is still pending.
    pub(super) async fn settled<C: Tracked>(&self, request: C) -> Checked<Answered<C>> {
        let start = Instant::now();
        loop {
            match self.send(request.clone()).await {
                Err(status) if status.code() == Code::Aborted && start.elapsed() < PENDING => {
                    tokio::time::sleep(BETWEEN).await;
                }
                Ok(answer) => return Ok(Answered { request, answer }),
                Err(status) => {
                    let wants = "OK once the call that was pending has ended";
                    return Err(Stop::failed(format_args!("{} {request:?}", C::NAME), came(&status), wants));
                }
            }
        }
    }

    /// Sends a request that the plugin must refuse with one of these codes.
    pub(super) async fn refused<C: Tracked>(&self, request: C, codes: &[Code], why: &str) -> Checked {
        match self.ok_or_refused(request.clone(), codes, why).await? {
            None => Ok(()),
            Some(answered) => Err(answered.wrong(wants(codes, why))),
        }
    }

    /// Sends a request that the plugin may do, or refuse with one of these codes.
    pub(super) async fn ok_or_refused<C: Tracked>(
        &self,
        request: C,
        codes: &[Code],
        why: &str,
    ) -> Checked<Option<Answered<C>>> {
        match self.send(request.clone()).await {
            Ok(answer) => Ok(Some(Answered { request, answer })),
            Err(status) if codes.contains(&status.code()) => Ok(None),
            Err(status) => Err(Stop::failed(format_args!("{} {request:?}", C::NAME), came(&status), wants(codes, why))),
        }
    }

    /// Sends a request that the plugin must refuse, with whatever code.
    pub(super) async fn fails<C: Tracked>(&self, request: C, why: &str) -> Checked {
        match self.send(request.clone()).await {
            Ok(answer) => Err(Answered { request, answer }.wrong(format_args!("a non-OK code: {why}"))),
            Err(_) => Ok(()),
        }
    }

    /// Sends a request again and again, each time without one of its REQUIRED fields.
    pub(super) async fn required<C: Tracked>(&self, full: C, fields: &[Field<C>]) -> Checked {
        for (field, clear) in fields {
            let mut request = full.clone();
            clear(&mut request);
            self.refused(request, &[Code::InvalidArgument], &format!("{field} is REQUIRED, and missing")).await?;
        }
        Ok(())
    }

    /// Sends a request, and goes away after a while: as a client whose own deadline is over, or that is killed.
    pub(super) async fn abandon<C: Tracked>(&self, request: C, after: Duration) {
        let request = self.complete(request);
        let undo = request.unanswered();
        if tokio::time::timeout(after, self.send(request)).await.is_err() {
            undo.into_iter().for_each(|undo| self.note(undo));
        }
    }

    /// Takes back all that is noted, the last thing first; what could not be.
    pub(super) async fn undo_all(&self) -> Vec<String> {
        let mut left = Vec::new();
        let all = std::mem::take(&mut *self.noted());
        for undo in all.into_iter().rev() {
            let text = undo.to_string();
            if let Err(stop) = self.undo(undo).await {
                left.push(match stop {
                    Stop::Failed(failure) => format!("{text}: {}", failure.came),
                    Stop::Skipped(reason) => format!("{text}: {reason}"),
                });
            }
        }
        // What was noted meanwhile is what could not be taken back just now.
        self.noted().clear();
        left
    }

    async fn undo(&self, undo: Undo) -> Checked {
        match undo {
            Undo::Folder(path) => super::using::remove(&path).await,
            Undo::Volume(volume_id) => {
                self.settled(DeleteVolumeRequest { volume_id, ..Default::default() }).await.map(drop)
            }
            Undo::Snapshot(snapshot_id) => {
                self.settled(DeleteSnapshotRequest { snapshot_id, ..Default::default() }).await.map(drop)
            }
            Undo::Group(request) => self.settled(request).await.map(drop),
            Undo::Attached(request) => self.gone_or(request).await,
            Undo::Staged(request) => self.gone_or(request).await,
            Undo::Published(request) => self.gone_or(request).await,
            // A plugin that refuses the name has nothing of it.
            Undo::NamedVolume(request) => match self.settled(*request).await {
                Ok(made) => self.delete_volume(made.answer.volume.unwrap_or_default().volume_id).await,
                Err(_) => Ok(()),
            },
            Undo::NamedSnapshot(request) => match self.settled(request).await {
                Ok(made) => {
                    let snapshot_id = made.answer.snapshot.unwrap_or_default().snapshot_id;
                    self.settled(DeleteSnapshotRequest { snapshot_id, ..Default::default() }).await.map(drop)
                }
                Err(_) => Ok(()),
            },
            Undo::NamedGroup(request) => match self.settled(request).await {
                Ok(made) => self.settled(delete_group(&made.answer.group_snapshot.unwrap_or_default())).await.map(drop),
                Err(_) => Ok(()),
            },
        }
    }

    pub(super) async fn delete_volume(&self, volume_id: String) -> Checked {
        self.settled(DeleteVolumeRequest { volume_id, ..Default::default() }).await.map(drop)
    }

    /// Of a volume that is not there nothing is left.
    async fn gone_or<C: Tracked>(&self, request: C) -> Checked {
        match self.send(request.clone()).await {
            Ok(_) => Ok(()),
            Err(status) if is_nothing(status.code()) => Ok(()),
            Err(_) => self.settled(request).await.map(drop),
        }
    }
}

fn wants(codes: &[Code], why: &str) -> String {
    let codes: Vec<_> = codes.iter().map(|code| code_name(*code)).collect();
    format!("{}: {why}", codes.join(" or "))
}

/// Whether a call that takes something back has this code where there is nothing.
fn is_nothing(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::InvalidArgument | Code::Unimplemented)
}

/// Whether a call with this code may have done its work, or still do it.
fn in_the_background(code: Code) -> bool {
    matches!(code, Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Unknown | Code::Aborted)
}
