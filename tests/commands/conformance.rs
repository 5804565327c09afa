//! `conformance` as a person and a build server see it.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Host, Need, Setup, can_run};

use super::DUNNAGE;

fn host() -> Result<Host> {
    Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)
}

/// The command against the host, with paths in the host's own folder.
fn conformance(host: &Host, arguments: &[&str]) -> Result<Output> {
    conformance_with(host, "", arguments)
}

/// With parameters of its own, a line each.
fn conformance_with(host: &Host, parameters: &str, arguments: &[&str]) -> Result<Output> {
    let scratch = host.setup().scratch();
    let params = scratch.path().join("params.yaml");
    std::fs::write(&params, format!("size: 4MiB\nfolder: {}\n{parameters}\n", scratch.folder("paths")?.display()))?;
    let mut command = Command::new(DUNNAGE);
    command.args(["conformance", "--endpoint"]).arg(host.socket("files.csi.dunnage.dev"));
    command.arg("--params").arg(params).args(arguments).output().context("cannot start it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_case_is_listed_with_its_section_and_needs_no_plugin() -> Result<()> {
    let listed = Command::new(DUNNAGE).args(["conformance", "--list"]).env_remove("CSI_ENDPOINT").output()?;
    ensure!(listed.status.success(), "{}", text(&listed.stderr));
    let lines = text(&listed.stdout);
    assert_eq!(lines.lines().count(), dunnage::conformance::cases().len() + 1);
    ensure!(lines.contains("create-volume/again") && lines.contains("CreateVolume Errors"), "{lines}");
    Ok(())
}

#[test]
fn progress_is_a_line_for_each_case_and_a_summary_with_the_seed() -> Result<()> {
    if !can_run("progress_is_a_line_for_each_case", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let ran = conformance(&host, &["--case", "create-volume/again", "--case", "modify/", "--seed", "42"])?;
    let shown = text(&ran.stdout);
    ensure!(ran.status.code() == Some(0), "{shown}{}", text(&ran.stderr));
    for part in ["✓ create-volume/again ", "skipped: not advertised: MODIFY_VOLUME", " 0 failed", "seed 42"] {
        ensure!(shown.contains(part), "no {part:?} in {shown}");
    }
    Ok(())
}

#[test]
fn the_report_is_one_json_document_and_junit() -> Result<()> {
    if !can_run("the_report_is_one_json_document_and_junit", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let file = host.setup().scratch().path().join("report.xml");
    let ran = conformance(&host, &["--case", "errors/", "--json", "--junit", &file.display().to_string()])?;
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout)?;
    assert_eq!((&report["failed"], &report["passed"]), (&0.into(), &2.into()), "{report:#}");
    assert_eq!(report["cases"][0]["verdict"], "passed");
    let xml = std::fs::read_to_string(file)?;
    let document = roxmltree::Document::parse(&xml)?;
    assert_eq!(document.root_element().attribute("tests"), Some("2"));
    Ok(())
}

#[test]
fn what_is_only_recommended_fails_where_it_is_asked_for() -> Result<()> {
    if !can_run("what_is_only_recommended_fails_where_it_is_asked_for", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let case = ["--case", "publish/second-target"];
    let ran = conformance(&host, &case)?;
    let shown = text(&ran.stdout);
    ensure!(ran.status.code() == Some(0) && shown.contains("! publish/second-target"), "{shown}");
    for part in ["sent   NodePublishVolume", "came   NodePublishVolumeResponse", "wants  FAILED_PRECONDITION"] {
        ensure!(shown.contains(part), "no {part:?} in {shown}");
    }
    let strict = conformance(&host, &[&case[..], &["--strict"]].concat())?;
    assert_eq!(strict.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_case_that_does_not_exist_is_told() -> Result<()> {
    let ran = Command::new(DUNNAGE).args(["conformance", "--endpoint", "/nobody", "--case", "no-such"]).output()?;
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stderr);
    ensure!(said.contains("no case has \"no-such\" in its name"), "{said}");
    Ok(())
}

#[test]
fn a_plugin_that_runs_already_is_not_started_beside() -> Result<()> {
    if !can_run("a_plugin_that_runs_already_is_not_started_beside", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let mark = host.setup().scratch().path().join("started");
    let ran = conformance(&host, &["--case", "errors/", "--start", &format!("touch {}", mark.display())])?;
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
    ensure!(said.contains("answers at") && said.contains("leave out --start"), "{said}");
    ensure!(!mark.exists(), "the command was run");
    Ok(())
}

#[test]
fn a_plugin_that_a_shell_has_started_is_gone_before_the_next_one_begins() -> Result<()> {
    if !can_run("a_plugin_that_a_shell_has_started_is_gone_before_the_next_one_begins", &[Need::Root])? {
        return Ok(());
    }
    let host = Setup::new()?.backend("files", "dir", "quota: none")?.prepare(DUNNAGE)?;
    host.init()?;
    let start = format!("{DUNNAGE} serve --config {}; exit 1", host.setup().config().display());
    let ran = conformance_with(&host, "kills: 5", &["--case", "crash/within-create", "--start", &start])?;
    let shown = text(&ran.stdout);
    ensure!(ran.status.code() == Some(0) && shown.contains("✓ crash/within-create"), "{shown}{}", text(&ran.stderr));
    Ok(())
}

#[test]
fn an_access_type_that_the_plugin_refuses_is_told_before_any_case() -> Result<()> {
    if !can_run("an_access_type_that_the_plugin_refuses_is_told", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let ran = conformance_with(&host, "access: [block]", &[])?;
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
    ensure!(said.contains("names block, and the plugin refuses such volumes"), "{said}");
    ensure!(ran.stdout.is_empty(), "cases were gone through: {}", text(&ran.stdout));
    Ok(())
}

#[test]
fn a_plugin_in_another_mount_namespace_is_noted() -> Result<()> {
    if !can_run("a_plugin_in_another_mount_namespace_is_noted", &[Need::Root])? {
        return Ok(());
    }
    let host = host()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", DUNNAGE, "conformance", "--case", "errors/", "--endpoint"]);
    let ran = command.arg(host.socket("files.csi.dunnage.dev")).output().context("cannot start unshare")?;
    let shown = text(&ran.stdout);
    ensure!(shown.contains("is in another mount namespace"), "{shown}{}", text(&ran.stderr));
    ensure!(!text(&conformance(&host, &["--case", "errors/"])?.stdout).contains("namespace"));
    Ok(())
}
