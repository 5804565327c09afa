//! `dunnage check`

use anstyle::{AnsiColor, Style};
use dunnage_driver_api::{Finding, Severity};

use super::{Cell, ConfigFile, Output, Program, Run, Status, Table};
use crate::check::{Section, check};

/// Look for everything that could go wrong on this node, and say how to mend it
///
/// Changes nothing. The exit status is 1 where something will not work.
#[derive(clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Run for Check {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let sections = match self.config.load(program.drivers()) {
            Ok(config) => check(&config, program.drivers()),
            Err(error) => {
                let remedy = error.remedy();
                vec![Section::new("configuration", vec![Finding::error(error, remedy)])]
            }
        };
        if self.json {
            output.json(&sections)?;
        } else {
            show(&sections, output)?;
        }
        let failed = count(&sections, Severity::Error) > 0;
        Ok(if failed { Status::Failure } else { Status::Success })
    }
}

fn count(sections: &[Section], severity: Severity) -> usize {
    sections.iter().flat_map(|section| &section.findings).filter(|finding| finding.severity == severity).count()
}

fn show(sections: &[Section], output: &mut Output) -> std::io::Result<()> {
    let bold = Style::new().bold();
    for section in sections {
        output.line(format_args!("{bold}{}{bold:#}", section.subject))?;
        let mut table = Table::new(2);
        for finding in &section.findings {
            table.row([word(finding.severity), finding.text.as_str().into()]);
            if !finding.remedy.is_empty() {
                table.row(["".into(), format!("fix: {}", finding.remedy).into()]);
            }
        }
        output.table(&table)?;
    }
    let [ok, warnings, errors] = [Severity::Ok, Severity::Warning, Severity::Error].map(|kind| count(sections, kind));
    output.line(format_args!("ok: {ok}, warnings: {warnings}, errors: {errors}"))
}

fn word(severity: Severity) -> Cell {
    match severity {
        Severity::Ok => Cell::styled("ok", AnsiColor::Green.on_default()),
        Severity::Warning => Cell::styled("warning", AnsiColor::Yellow.on_default()),
        Severity::Error => Cell::styled("error", AnsiColor::Red.on_default().bold()),
    }
}
