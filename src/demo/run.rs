//! A demo from the empty folder to nothing left.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Access, Interrupt, Life, Plugin, VolumeRequest, blocking};
use crate::demo::script::{Failed, Mismatch, Script, came, came_with};
use crate::demo::stories::{self, MIB};
use crate::demo::{Event, Footing, Place, Served, Show, left};

/// How long the host's sockets are waited for.
const WAIT: Duration = Duration::from_secs(10);

/// How a demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// With what rights.
    pub footing: Footing,
    /// Whether the folder stays.
    pub keep: bool,
    /// The drivers that the host has.
    pub drivers: Vec<&'static str>,
}

/// A host that was started, and can be stopped.
pub trait RunningHost {
    /// Stops it: afterwards nothing of it runs.
    fn stop(self) -> impl Future<Output = Result<(), String>>;
}

/// Runs the demo: whether all went well and nothing is left.
///
/// `start` is given the configuration file, initialises the roots and starts the host; its error is shown.
///
/// # Errors
/// Where the demo's folder cannot be made. Whatever goes wrong later is a failed step.
pub async fn run<H: RunningHost>(
    options: Options,
    interrupt: &Interrupt,
    show: &mut dyn Show,
    start: impl AsyncFnOnce(&Path) -> Result<H, String>,
) -> io::Result<bool> {
    let mut place = Place::make(options.footing, &options.drivers)?;
    let mut script = Script::new(show);
    script.show(&Event::Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        footing: options.footing.to_string(),
        folder: place.folder().display().to_string(),
        drivers: place.served().iter().map(|served| served.driver.to_owned()).collect(),
        without: place.without().map(str::to_owned),
    });
    script.section("The host starts", None);
    let config = place.config();
    let starting = async {
        let text = format!("serving {}", names(place.served()));
        start(&config).await.map(|host| came_with(text, host)).map_err(Mismatch)
    };
    if let Ok(host) = script.step("(start)", "a host that serves its sockets", starting).await {
        let _shown = lives(&mut script, &place, interrupt).await;
        script.section("The end", None);
        let stopping = async { host.stop().await.map(|()| came("the host has stopped")).map_err(Mismatch) };
        let _shown = script.step("(stop)", "the host's end", stopping).await;
    }
    let kept = options.keep.then(|| place.folder().display().to_string());
    if options.keep {
        place.keep();
    } else {
        let removing = async {
            let removed = tokio::task::spawn_blocking(move || place.remove()).await;
            match removed.map_err(io::Error::other).and_then(|removed| removed) {
                Ok(()) => Ok(came("the folder of the demo is removed")),
                Err(error) => Err(Mismatch(format!("the folder of the demo cannot be removed: {error}"))),
            }
        };
        let _shown = script.step("(remove)", "the folder gone", removing).await;
    }
    let interrupted = interrupt.is_raised();
    script.end(interrupted, kept);
    Ok(script.failed() == 0 && !interrupted)
}

fn names(served: &[Served]) -> String {
    served.iter().map(|served| format!("{} ({})", served.name, served.driver)).collect::<Vec<_>>().join(" and ")
}

async fn lives(script: &mut Script<'_>, place: &Place, interrupt: &Interrupt) -> Result<(), Failed> {
    let mut plugins = Vec::new();
    for served in place.served() {
        plugins.push((served, connect(script, served).await?));
    }
    let roots: Vec<PathBuf> = place.served().iter().map(|served| served.root.clone()).collect();
    let before = files_before(script, &roots).await?;
    for (served, plugin) in &plugins {
        for (title, request, story) in acts(served.driver) {
            let mut life = Life::new(plugin, request, place.pods(title.0));
            if matches!(story, Story::Copy) && !stories::copies(&life) {
                continue;
            }
            script.section(title.1, Some(&plugin.offers().name));
            let told = tokio::select! {
                told = tell(story, script, &mut life) => told,
                () = interrupt.raised() => Err(Failed),
            };
            if told.is_err() {
                let _shown = life.end(script).await;
            }
            if interrupt.is_raised() {
                return Err(Failed);
            }
        }
    }
    nothing_left(script, place, (roots, before)).await
}

async fn connect(script: &mut Script<'_>, served: &Served) -> Result<Plugin, Failed> {
    let step = async {
        let endpoint = served.endpoint().map_err(|error| Mismatch(error.to_string()))?;
        let plugin = Plugin::connect(&endpoint, WAIT).await?;
        let offers = plugin.offers();
        let text = format!("{} {}: {}", offers.name, offers.version, served.what);
        Ok(came_with(text, plugin))
    };
    let plugin = script.step("GetPluginInfo", "a plugin behind the socket", step).await?;
    let step = async { if plugin.probe().await? { Ok(came("ready")) } else { Err(Mismatch("not ready".to_owned())) } };
    script.step("Probe", "a plugin that is ready", step).await?;
    Ok(plugin)
}

#[derive(Debug, Clone, Copy)]
enum Story {
    Folder,
    FileSystem,
    Disk,
    Copy,
    Refusals,
}

async fn tell(story: Story, script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    match story {
        Story::Folder => stories::folder(script, life).await,
        Story::FileSystem => stories::file_system(script, life).await,
        Story::Disk => stories::disk(script, life).await,
        Story::Copy => stories::copy(script, life).await,
        Story::Refusals => stories::refusals(script, life).await,
    }
}

/// The lives of a driver: the volume's name with the title, what is asked for, and the story.
fn acts(driver: &str) -> Vec<((&'static str, &'static str), VolumeRequest, Story)> {
    let act = |name: &'static str, title, access, story| {
        let required_bytes = 64 * MIB;
        let request = VolumeRequest {
            name: name.to_owned(),
            required_bytes,
            access,
            parameters: HashMap::new(),
            snapshot_id: None,
        };
        ((name, title), request, story)
    };
    let mount = |fs_type: &str| Access::Mount(fs_type.to_owned());
    if driver == "image" {
        vec![
            act("database", "A disk with a file system that grows", mount("ext4"), Story::FileSystem),
            act("raw", "A raw block device", Access::Block, Story::Disk),
            act("accounts", "A snapshot that outlives its volume", mount("ext4"), Story::Copy),
        ]
    } else {
        vec![
            act("notes", "A folder that two pods use, one after the other", mount(""), Story::Folder),
            act("letters", "A snapshot that outlives its volume", mount(""), Story::Copy),
            act("orders", "Mistakes, and what the plugin says to them", mount(""), Story::Refusals),
        ]
    }
}

async fn files_before(script: &mut Script<'_>, roots: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Failed> {
    let mut before = BTreeSet::new();
    for root in roots {
        match blocking("cannot look through", root, left::files).await {
            Ok(files) => before.extend(files),
            Err(error) => return script.step("(look)", "roots to read", async { Err(error.into()) }).await,
        }
    }
    Ok(before)
}

/// Everything that the lives made has to be gone, in the kernel and on the disk.
async fn nothing_left(
    script: &mut Script<'_>,
    place: &Place,
    (roots, before): (Vec<PathBuf>, BTreeSet<PathBuf>),
) -> Result<(), Failed> {
    script.section("Nothing is left", None);
    let none = |left: Vec<String>, what: &str| match left.as_slice() {
        [] => Ok(came(format!("no {what}"))),
        left => Err(Mismatch(left.join(", "))),
    };
    let paths = |left: Vec<PathBuf>| left.iter().map(|path| path.display().to_string()).collect();
    let step = async {
        let left = blocking("cannot list the mounts below", place.folder(), left::mounts).await?;
        none(paths(left), "mount below the demo's folder")
    };
    script.step("(mounts)", "no mount", step).await?;
    let step = async {
        let left = blocking("cannot list the loop devices of", place.folder(), left::loop_devices).await?;
        none(left, "loop device with a file of the demo")
    };
    script.step("(loop devices)", "no loop device", step).await?;
    let step = async {
        let left =
            blocking("cannot look through the roots of", place.folder(), move |_| left::new_files(&roots, &before));
        none(paths(left.await?), "file in the roots that was not there before")
    };
    script.step("(files)", "no file", step).await
}
