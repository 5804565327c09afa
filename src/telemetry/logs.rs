//! Where log lines go, and which.

use std::io::IsTerminal;

use dunnage_driver_api::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object in each line.
    Json,
}

/// Logs to the standard error from now on: `RUST_LOG` says what (`info` where it is not set).
///
/// # Errors
/// `InvalidArgument` where `RUST_LOG` cannot be read; `Internal` where the process logs already.
pub fn init(format: LogFormat) -> Result<()> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse(&directives)
        .map_err(|error| Error::invalid(format!("cannot read RUST_LOG={directives:?}")).caused_by(error))?;
    let subscriber = subscriber(format, filter, std::io::stderr, std::io::stderr().is_terminal());
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Error::internal("cannot start to log").caused_by(error))
}

pub(super) fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W, colours: bool) -> impl Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    Registry::default().with(lines.with_filter(filter_fn(hides_requests)).with_filter(filter))
}

/// The libraries that carry requests show their bytes and headers in finer lines, whatever `RUST_LOG` asks for.
fn hides_requests(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !matches!(library, "h2" | "hyper" | "hyper_util" | "tonic" | "tower")
}
