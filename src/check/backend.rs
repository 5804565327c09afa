//! One backend: what its driver says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use dunnage_driver_api::{DriverEntry, Finding, System};

use crate::config::{BackendConfig, Config, Ephemeral};
use crate::host::Memory;

/// How long a driver may look. A store that hangs never answers.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn findings(
    backend: &BackendConfig,
    config: &Config,
    memory: &Memory,
    drivers: &[DriverEntry],
) -> Vec<Finding> {
    if !backend.is_on(&config.node, config.mode) {
        return vec![Finding::ok("is not on this node")];
    }
    let mut findings: Vec<_> = drivers
        .iter()
        .filter(|driver| {
            let carved = backend.store == Some(driver.name) && backend.has_store(&config.node);
            driver.name == backend.driver || carved
        })
        .flat_map(|driver| driver.tools)
        .map(|tool| match tool.find() {
            Some(path) => Finding::ok(format_args!("{} is {}", tool.program, path.display())),
            None => Finding::error(
                format_args!("{} is not installed", tool.program),
                format_args!("install the package {}", tool.package),
            ),
        })
        .collect();
    let configured = Arc::clone(&backend.configured);
    let opening = backend.opening(&config.node, config.mode, Arc::new(System));
    let looked = within(LIMIT, move || configured.check(&opening));
    findings.extend(memory.mismatch(&backend.name, &looked));
    findings.extend(looked);
    findings.extend(backend.ephemeral.as_ref().map(for_pods));
    findings
}

/// No warning: whoever wrote `ephemeral` wants it. But nothing else counts these volumes.
fn for_pods(allowed: &Ephemeral) -> Finding {
    let parameters = match allowed.parameters.as_slice() {
        [] => "set no parameters".to_owned(),
        names => format!("set {}", names.join(", ")),
    };
    Finding::ok(format_args!(
        "authors of pods may make ephemeral volumes of up to {} each, in any number (no ResourceQuota counts them), and {parameters}",
        allowed.max_size
    ))
}

/// Runs `look` on a thread of its own, which is left behind where it hangs.
fn within(limit: Duration, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let found = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
            vec![Finding::error("its driver failed while it looked", "report this with the output above")]
        });
        // Nobody waits any more where it took too long.
        let _ = sender.send(found);
    });
    receiver.recv_timeout(limit).unwrap_or_else(|_| {
        vec![Finding::error(
            format_args!("its store did not answer within {} s", limit.as_secs()),
            "see whether the disk or the server behind it is alive (dmesg)",
        )]
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_store_that_hangs_is_told() {
        let (end, wait) = channel::<()>();
        let found = within(Duration::from_millis(10), move || {
            let _ = wait.recv();
            Vec::new()
        });
        assert!(found[0].text.contains("did not answer"), "{found:?}");
        drop(end);
    }
}
