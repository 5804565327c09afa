//! The conformance suite against a driver in the host, all in the process of a test.

use std::error::Error;
use std::path::Path;

use dunnage::client::{Endpoint, Interrupt};
use dunnage::conformance::{Options, Params, Quiet, Report, run};
use dunnage::host::Host;
use dunnage_driver_api::DriverEntry;

/// Serves one backend of `driver` in a folder of its own, and runs every case of `dunnage conformance` that applies to it.
///
/// `keys` is given a folder that does not exist yet, and gives the keys of the backend beside `name` and `driver`, a line
/// each: `format!("root: {}", folder.display())`. `params` is what `--params` takes, as YAML. The chances of the run are
/// the same each time. Needs root: without it, nothing that is published can be looked at, see [`crate::needs_root`].
///
/// Gives the report, for what only a test can know: the warnings that it accepts, the cases that must not be skipped.
///
/// # Panics
/// Where a rule is broken, with what was sent, what came and what the specification wants; and where the host cannot be
/// started with this driver and these keys.
#[expect(clippy::panic, reason = "it is how a test fails")]
pub fn conformance(driver: DriverEntry, params: &str, keys: impl FnOnce(&Path) -> String) -> Report {
    match report(driver, params, keys) {
        Ok(report) if report.failed == 0 => report,
        Ok(report) => {
            let broken: Vec<_> = report.failures().map(|(case, failure)| format!("{case}\n{failure}")).collect();
            panic!("{} rules are broken:\n{}", broken.len(), broken.join("\n\n"))
        }
        Err(error) => panic!("the suite cannot run: {error}"),
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn report(driver: DriverEntry, params: &str, keys: impl FnOnce(&Path) -> String) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("kit-").tempdir()?;
    let [state, sockets, paths] = ["state", "sockets", "paths"].map(|name| folder.path().join(name));
    [&state, &sockets, &paths].into_iter().try_for_each(std::fs::create_dir)?;
    let keys: String = keys(&folder.path().join("store")).lines().map(|line| format!("    {line}\n")).collect();
    let config = format!(
        "node: kit\nstate: {}\nsockets: {}\ntelemetry: {{listen: \"off\"}}\nbackends:\n  - name: tested\n    driver: {}\n{keys}",
        state.display(),
        sockets.display(),
        driver.name,
    );
    let mut params = Params::parse(params)?;
    params.folder = paths;
    let options = Options {
        endpoint: Endpoint::at(sockets.join("tested.csi.dunnage.dev/csi.sock"))?,
        params,
        only: Vec::new(),
        start: None,
        seed: 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // On a thread of the runtime, which may block while the store is marked.
        let host = tokio::spawn(async move { Host::start_alone(&config, &[driver]).await }).await??;
        let (_raise, interrupt) = Interrupt::by_hand();
        let report = run(options, &interrupt, &mut Quiet).await;
        host.stop().await;
        Ok(report?)
    })
}
