//! `dunnage completions`

use super::{Output, Program, Run, Status};

/// Print the completions of a shell
#[derive(clap::Args)]
#[command(after_help = "For bash: dunnage completions bash > /etc/bash_completion.d/dunnage")]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Run for Completions {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program.command(), program.name(), &mut script);
        output.text(String::from_utf8_lossy(&script))?;
        Ok(Status::Success)
    }
}
