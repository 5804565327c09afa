//! `dunnage bench`

use std::path::PathBuf;

use anyhow::Context as _;
use dunnage_driver_api::Bytes;

use super::{Output, Program, Run, Status};
use crate::bench::{self, Mode, Options, Report};
use crate::client::{Access, Endpoint, Interrupt};

/// Measure any CSI plugin: whole lives of volumes, creates, or lists
///
/// Prints the rate, the times of each call, and the memory and CPU time of the plugin's process. Deletes what it made,
/// after Ctrl-C too. The exit status is 1 where a call failed.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// The plugin's socket: unix:///path, unix:path or a path
    #[arg(long, value_name = "SOCKET", env = "CSI_ENDPOINT")]
    endpoint: Endpoint,

    /// A second plugin: the same work in turns, and how the two compare
    #[arg(long, value_name = "SOCKET")]
    against: Option<Endpoint>,

    /// What is measured
    #[arg(long, value_enum, default_value = "lives")]
    mode: Mode,

    /// How many lives, creates or lists for each number of workers
    #[arg(long, value_name = "N", default_value = "200")]
    lives: usize,

    /// How many work at once: one measurement for each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,64", value_parser = workers)]
    workers: Vec<usize>,

    /// How many volumes are made before and deleted after, so that they are there meanwhile
    #[arg(long, value_name = "N", default_value = "0")]
    fill: usize,

    /// The size of a volume
    #[arg(long, default_value = "64MiB")]
    size: Bytes,

    /// Use volumes as raw block devices
    #[arg(long, conflicts_with = "fs")]
    block: bool,

    /// The file system of volumes; the plugin's choice where it is not given
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    fs: String,

    /// A parameter of the class
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,

    /// How many volumes a page of ListVolumes may have
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(i32).range(0..))]
    page_size: i32,

    /// The plugin's process; found by its socket where it is not given
    #[arg(long)]
    pid: Option<u32>,

    /// Where staging and target paths are made: a folder that the plugin sees too [default: the temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Write a plot as well
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=4096) => Ok(workers),
        _ => Err("a number from 1 to 4096".to_owned()),
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as key=value".to_owned()),
    }
}

impl Run for Bench {
    fn run(self, _: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let (json, svg) = (self.json, self.svg.clone());
        let options = self.options();
        let runtime = crate::host::runtime().context("cannot start the runtime")?;
        let report = runtime.block_on(async {
            let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
            // Whether anybody reads it must not stop the measurement.
            let progress = |text: &str| drop(output.note(format_args!("{text}\n")));
            anyhow::Ok(bench::run(&options, &interrupt, progress).await?)
        })?;
        show(&report, json, output)?;
        if let Some(file) = svg {
            std::fs::write(&file, bench::plot(&report)).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(if report.failures() > 0 || report.interrupted { Status::Failure } else { Status::Success })
    }
}

fn show(report: &Report, json: bool, output: &mut Output) -> std::io::Result<()> {
    if json { output.json(report) } else { output.text(bench::table(report)) }
}

impl Bench {
    fn options(self) -> Options {
        Options {
            endpoint: self.endpoint,
            against: self.against,
            mode: self.mode,
            lives: self.lives,
            workers: self.workers,
            fill: self.fill,
            size: self.size.to_wire(),
            access: if self.block { Access::Block } else { Access::Mount(self.fs) },
            parameters: self.parameters.into_iter().collect(),
            page_size: self.page_size,
            pid: self.pid,
            dir: self.dir.unwrap_or_else(std::env::temp_dir),
        }
    }
}
