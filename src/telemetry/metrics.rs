//! What is counted and measured.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunnage_driver_api::{Error, Result};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::code;
use super::process::Process;

/// Upper bounds of the buckets of all durations, in seconds: from a call answered from memory to the two minutes of a
/// client without a deadline.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    plugin: Arc<str>,
    rpc: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    backend: String,
    program: &'static str,
    outcome: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations<L: Clone + std::hash::Hash + Eq>() -> Durations<L> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// The metrics of the process. Clones are the same metrics.
///
/// Labels are plugins, RPCs, codes, backends and programs; never the name or id of a volume.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    calls: Durations<CallLabels>,
    running: Family<PluginLabels, Gauge>,
    waits: Durations<BackendLabels>,
    commands: Durations<CommandLabels>,
}

/// How long the calls of one backend waited until they were worked on.
#[derive(Debug, Clone)]
pub struct Waits(Histogram);

impl Waits {
    /// Counts a call that waited for an earlier one of its volume, or for a thread.
    pub fn ended(&self, wait: Duration) {
        self.0.observe(wait.as_secs_f64());
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let (calls, waits, commands) = (durations(), durations(), durations());
        let running = Family::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let own = registry.sub_registry_with_prefix("dunnage");
        own.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let seconds = || Unit::Seconds;
        own.register_with_unit("rpc_duration", "Time to answer a call", seconds(), calls.clone());
        own.register("rpcs_running", "Calls that wait for their answer", running.clone());
        own.register_with_unit(
            "operation_wait",
            "Time that a call waited for its volume and a thread",
            seconds(),
            waits.clone(),
        );
        own.register_with_unit("command_duration", "Time that a program ran", seconds(), commands.clone());
        Self { registry: Arc::new(Mutex::new(registry)), calls, running, waits, commands }
    }

    /// Where the waits of a backend's calls are counted.
    pub fn waits(&self, backend: &str) -> Waits {
        Waits(self.waits.get_or_create_owned(&BackendLabels { backend: backend.into() }))
    }

    /// Registers values that are read at each scrape, as gauges named `dunnage_<name>`.
    ///
    /// `read` must answer at once: it runs where the endpoint is served, and takes what it says from memory.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        self.register(name, help, MetricType::Gauge, Box::new(read));
    }

    /// Registers values that only grow, as counters named `dunnage_<name>_total`; else as [`gauge`](Self::gauge).
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        self.register(name, help, MetricType::Counter, Box::new(read));
    }

    fn register(&self, name: &'static str, help: &'static str, kind: MetricType, read: Box<Read>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let collector = Scraped { name, help, kind, read };
        registry.sub_registry_with_prefix("dunnage").register_collector(Box::new(collector));
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// [`Internal`](dunnage_driver_api::ErrorKind::Internal) where a value cannot be written.
    pub fn encode(&self) -> Result<String> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .map_err(|error| Error::internal("cannot write the metrics").caused_by(error))?;
        Ok(text)
    }

    pub(super) fn call_started(&self, plugin: &Arc<str>) {
        self.running.get_or_create(&PluginLabels { plugin: plugin.clone() }).inc();
    }

    pub(super) fn call_ended(&self, plugin: &Arc<str>, rpc: &str, code: Code, duration: Duration) {
        self.running.get_or_create(&PluginLabels { plugin: plugin.clone() }).dec();
        let labels = CallLabels { plugin: plugin.clone(), rpc: rpc.into(), code: code::name(code) };
        self.calls.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    pub(super) fn command_ended(
        &self,
        backend: &str,
        program: &'static str,
        outcome: &'static str,
        duration: Duration,
    ) {
        let labels = CommandLabels { backend: backend.into(), program, outcome };
        self.commands.get_or_create(&labels).observe(duration.as_secs_f64());
    }
}

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Sample {
    /// A value without labels.
    pub fn new(value: f64) -> Self {
        Self { labels: Vec::new(), value }
    }

    /// Adds a label. Its values must be few, and known from the configuration or the code.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

type Read = dyn Fn() -> Vec<Sample> + Send + Sync;

/// Values that are read when they are asked for.
struct Scraped {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: Box<Read>,
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for sample in (self.read)() {
            let labelled = metric.encode_family(&sample.labels)?;
            match self.kind {
                MetricType::Counter => ConstCounter::new(sample.value).encode(labelled)?,
                _ => ConstGauge::new(sample.value).encode(labelled)?,
            }
        }
        Ok(())
    }
}
