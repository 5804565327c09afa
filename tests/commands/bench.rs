//! `dunnage bench` against a running host.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Client, Host, Need, Setup, can_run, loop_devices_beneath, mounts_beneath, wait_until};
use serde_json::Value;

use crate::{DUNNAGE, LIMIT, Running};

const FILES: &str = "files.csi.dunnage.dev";
const DISKS: &str = "disks.csi.dunnage.dev";

fn rig(test: &str) -> Result<Option<Host>> {
    if !can_run(test, &[Need::Root])? {
        return Ok(None);
    }
    let setup = Setup::new()?.backend("files", "dir", "quota: none")?.backend("disks", "image", "")?;
    setup.start(DUNNAGE).map(Some)
}

fn bench(host: &Host, csi_name: &str, more: &[&str]) -> Command {
    let mut command = Command::new(DUNNAGE);
    command.args(["bench", "--endpoint", &host.endpoint(csi_name), "--size", "16MiB"]).args(more);
    command.arg("--dir").arg(host.setup().scratch().path().join("bench")).env_remove("CSI_ENDPOINT");
    command
}

fn volumes(client: &Client) -> Result<usize> {
    Ok(client.list_volumes(Default::default())?.entries.len())
}

fn nothing_is_left(host: &Host) -> Result<()> {
    for csi_name in [FILES, DISKS] {
        ensure!(volumes(&host.client(csi_name)?)? == 0, "volumes are left on {csi_name}");
    }
    let scratch = host.setup().scratch().path();
    ensure!(mounts_beneath(scratch)?.is_empty() && loop_devices_beneath(scratch).is_empty(), "something is left");
    let folder = scratch.join("bench");
    ensure!(!folder.exists() || fs::read_dir(&folder)?.count() == 0, "paths are left in {}", folder.display());
    Ok(())
}

fn report(mut command: Command) -> Result<Value> {
    let (status, text) = Running::start(command.arg("--json"))?.end()?;
    ensure!(status.success(), "it ended with {status}: {text}");
    serde_json::from_str(&text).with_context(|| text)
}

/// A number, which must be there.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn two_plugins_are_measured_compared_and_drawn_and_nothing_is_left() -> Result<()> {
    let Some(host) = rig("two_plugins_are_measured_compared_and_drawn_and_nothing_is_left")? else { return Ok(()) };
    let plot = host.setup().scratch().path().join("plot.svg");
    let mut command = bench(&host, DISKS, &["--against", &host.endpoint(FILES), "--lives", "6", "--workers", "1,3"]);
    command.arg("--svg").arg(&plot);
    let report = report(command)?;
    let sides = report["sides"].as_array().context("no sides")?;
    assert_eq!(sides.iter().map(|side| side["name"].as_str().unwrap()).collect::<Vec<_>>(), [DISKS, FILES]);
    for side in sides {
        assert_eq!(side["pid"], host.pid()?.as_raw_nonzero().get(), "{side}");
    }
    let phases = report["phases"].as_array().context("no phases")?;
    let done: Vec<_> = phases.iter().map(|phase| (number(&phase["side"]), number(&phase["workers"]))).collect();
    assert_eq!(done.len(), 4, "{done:?}");
    for phase in phases {
        assert_eq!((&phase["done"], &phase["failures"]), (&6.into(), &0.into()), "{phase}");
        ensure!(number(&phase["per_second"]) > 0.0 && number(&phase["rss_peak"]) >= 1e6, "{phase}");
        let calls = phase["calls"].as_array().context("no calls")?;
        for call in calls {
            let times = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(|key| number(&call[key]));
            ensure!(times.is_sorted() && times[0] > 0.0, "{call}");
        }
        let staged = calls.iter().any(|call| call["call"] == "NodeStageVolume");
        assert_eq!(staged, phase["side"] == 0, "{phase}");
    }
    let ratios = report["ratios"].as_array().context("no ratios")?;
    ensure!(ratios.len() == 2 && ratios.iter().all(|ratio| number(&ratio["rate"]) > 0.0), "{ratios:?}");
    nothing_is_left(&host)?;
    is_a_drawing(&fs::read_to_string(&plot)?)
}

/// That it is an SVG with both plugins in it, and that all it draws lies within.
fn is_a_drawing(svg: &str) -> Result<()> {
    let document = roxmltree::Document::parse(svg)?;
    let root = document.root_element();
    assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
    let side = |name: &str| root.attribute(name).context("no size")?.parse::<f64>().context("no number");
    let (width, height) = (side("width")?, side("height")?);
    let mut drawn = 0;
    for element in document.descendants() {
        for (names, most) in [(["x", "x1", "x2", "cx"], width), (["y", "y1", "y2", "cy"], height)] {
            for value in names.iter().filter_map(|name| element.attribute(*name)) {
                let value: f64 = value.parse()?;
                ensure!((0.0..=most).contains(&value), "{element:?} lies outside of the drawing");
                drawn += 1;
            }
        }
    }
    let texts: Vec<_> =
        document.descendants().filter(|one| one.has_tag_name("text")).filter_map(|one| one.text()).collect();
    for words in [DISKS, FILES, "NodeStageVolume", "CreateVolume", "lives, 3 at once"] {
        ensure!(texts.iter().any(|text| text.contains(words)), "{words:?} is not in {texts:?}");
    }
    ensure!(drawn > 50, "only {drawn} positions");
    Ok(())
}

#[test]
fn a_person_gets_a_table_and_creates_and_lists_are_measured_too() -> Result<()> {
    let Some(host) = rig("a_person_gets_a_table_and_creates_and_lists_are_measured_too")? else { return Ok(()) };
    let mut command = bench(&host, FILES, &["--lives", "4", "--workers", "2", "--against", &host.endpoint(DISKS)]);
    let (status, table) = Running::start(&mut command)?.end()?;
    ensure!(status.success(), "it ended with {status}");
    for words in [FILES, DISKS, "per second", "NodePublishVolume", "p99", &format!("{FILES} over {DISKS}")] {
        ensure!(table.contains(words), "{words:?} is not in {table}");
    }
    ensure!(table.lines().all(|line| line.chars().count() < 120), "too wide: {table}");
    for (mode, wanted) in [("creates", &["creates", "deletes"][..]), ("lists", &["lists"])] {
        let report = report(bench(&host, FILES, &["--mode", mode, "--lives", "5", "--workers", "2", "--fill", "9"]))?;
        let phases = report["phases"].as_array().context("no phases")?;
        for what in wanted {
            ensure!(phases.iter().any(|phase| phase["what"] == *what && phase["done"] == 5), "{what}: {phases:#?}");
        }
    }
    nothing_is_left(&host)
}

#[test]
fn what_fails_is_counted_quoted_and_ends_with_status_1() -> Result<()> {
    let Some(host) = rig("what_fails_is_counted_quoted_and_ends_with_status_1")? else { return Ok(()) };
    let mut command = bench(&host, FILES, &["--block", "--lives", "3", "--workers", "1", "--json"]);
    let (status, text) = Running::start(&mut command)?.end()?;
    let report: Value = serde_json::from_str(&text)?;
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(report["phases"][0]["failures"], 3, "{text}");
    ensure!(report["phases"][0]["messages"][0].as_str().is_some_and(|said| said.contains("raw block")), "{text}");
    let mut command = bench(&host, "nobody.csi.dunnage.dev", &[]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("nobody.csi.dunnage.dev"), "{said}");
    nothing_is_left(&host)
}

#[test]
fn ctrl_c_deletes_what_was_made() -> Result<()> {
    let Some(host) = rig("ctrl_c_deletes_what_was_made")? else { return Ok(()) };
    for csi_name in [FILES, DISKS] {
        let client = host.client(csi_name)?;
        let running = Running::start(&mut bench(
            &host,
            csi_name,
            &["--fill", "5", "--lives", "1000000", "--workers", "4", "--json"],
        ))?;
        wait_until("lives to be measured", LIMIT, || Ok(volumes(&client)? > 6))?;
        running.interrupt()?;
        let (status, text) = running.end()?;
        assert_eq!(status.code(), Some(1), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text)?["interrupted"], true, "{text}");
        nothing_is_left(&host)?;
    }
    Ok(())
}
