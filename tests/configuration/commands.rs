//! The commands that need no running host.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use dunnage::Program;
use dunnage::cli::{Output, Status};
use dunnage_driver_api::{Backend, Driver, DriverEntry, Error, Finding, Init, Opening, Result};
use serde_json::Value;

use crate::stand_ins::DRIVERS;

/// What a command wrote.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command with the stand-ins for drivers: its status, its output and its error output.
fn run(arguments: &[&str]) -> (Status, String, String) {
    run_as(&Program::dunnage(DRIVERS.iter().copied()), arguments)
}

fn run_as(program: &Program, arguments: &[&str]) -> (Status, String, String) {
    let (out, err) = (Page::default(), Page::default());
    let arguments = [&[program.name()], arguments].concat();
    let status = program.run(arguments, &mut Output::plain(out.clone(), err.clone()));
    (status, out.text(), err.text())
}

/// A configuration of two backends whose roots are there, in a folder of its own.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(node.path("a")).unwrap();
        std::fs::create_dir(node.path("b")).unwrap();
        node.write("");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, more: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "node: here\nstate: {at}/state\nsockets: {at}/plugins\nbackends:\n  - {{name: a, driver: dir, root: {at}/a}}\n  \
             - {{name: b, driver: image, root: {at}/b}}\n  - {{name: far, driver: dir, root: {at}/far, nodes: [there]}}\n{more}"
        );
        std::fs::write(self.path("dunnage.yaml"), text).unwrap();
    }

    fn run(&self, command: &str, more: &[&str]) -> (Status, String, String) {
        let file = self.path("dunnage.yaml");
        run(&[&[command, "--config", file.to_str().unwrap()], more].concat())
    }
}

#[test]
fn init_marks_what_is_empty_and_can_be_repeated() {
    let node = Node::new();
    let (status, out, _) = node.run("init", &[]);
    assert_eq!(status, Status::Success);
    assert_eq!(out.matches("is ours now: ").count(), 2, "{out}");
    let (status, again, _) = node.run("init", &[]);
    assert_eq!(status, Status::Success);
    assert_eq!(again, out.replace("is ours now: ", "was ours already: "));
}

#[test]
fn init_goes_on_after_a_failure_and_tells_it() {
    let node = Node::new();
    std::fs::remove_dir(node.path("a")).unwrap();
    let (status, out, _) = node.run("init", &[]);
    assert_eq!(status, Status::Failure);
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("a  failed: cannot write the marker: No such file"), "{out}");
    assert!(lines[1].starts_with("b  is ours now: "), "{out}");
}

#[test]
fn init_of_named_backends_leaves_the_others() {
    let node = Node::new();
    assert_eq!(node.run("init", &["b"]).0, Status::Success);
    assert!(node.path("b/marker").exists() && !node.path("a/marker").exists());
    let (status, out, err) = node.run("init", &["a", "nope"]);
    assert_eq!((status, out.as_str()), (Status::Failure, ""));
    assert_eq!(err, "error: there is no backend nope in the configuration: there are a, b, far\n");
    assert!(!node.path("a/marker").exists());
    let (status, _, err) = node.run("init", &["far"]);
    assert_eq!(status, Status::Failure);
    assert_eq!(err, "error: the backend far is not on this node, here: run this on one of its `nodes`\n");
}

fn finding<'a>(sections: &'a Value, subject: &str, text: &str) -> &'a Value {
    let section = sections.as_array().unwrap().iter().find(|section| section["subject"] == subject);
    let findings = section.unwrap_or_else(|| panic!("no {subject} in {sections:#}"))["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["text"].as_str().unwrap().contains(text))
        .unwrap_or_else(|| panic!("no {text} in {findings:#?}"))
}

#[test]
fn check_tells_what_is_wrong_with_a_backend_and_how_to_mend_it() {
    let node = Node::new();
    node.run("init", &["b"]);
    let (status, out, _) = node.run("check", &["--json"]);
    assert_eq!(status, Status::Failure);
    let sections: Value = serde_json::from_str(&out).unwrap();
    let missing = finding(&sections, "backend a", "has no marker");
    assert_eq!((&missing["severity"], &missing["remedy"]), (&"error".into(), &"run dunnage init".into()));
    assert_eq!(finding(&sections, "backend b", "is ours")["severity"], "ok");
    assert_eq!(finding(&sections, "backend far", "not on this node")["severity"], "ok");
    assert_eq!(finding(&sections, "node here", "Linux ")["severity"], "ok");
    assert_eq!(finding(&sections, "state", "can be written")["severity"], "ok");
    let (_, out, _) = node.run("check", &[]);
    assert!(out.contains("has no marker\n") && out.contains("  fix: run dunnage init\n"), "{out}");
}

#[test]
fn check_sees_what_two_backends_cannot_both_have() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let file = folder.path().join("dunnage.yaml");
    let backend =
        |name: &str, root: &str| format!("  - {{name: {name}, driver: dir, quota: none, root: {at}/{root}}}\n");
    let backends = backend("first", "one") + &backend("again", "one") + &backend("copied", "copy");
    std::fs::write(&file, format!("node: here\nstate: {at}/state\nsockets: {at}/s\nbackends:\n{backends}")).unwrap();
    std::fs::create_dir(folder.path().join("one")).unwrap();
    let run = |command: &str, more: &[&str]| {
        let output = program().args([command, "--config", file.to_str().unwrap()]).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    run("init", &["first"]);
    let copied = Command::new("cp").arg("-a").args([folder.path().join("one"), folder.path().join("copy")]).status();
    assert!(copied.unwrap().success());
    let sections: Value = serde_json::from_str(&run("check", &["--json"])).unwrap();
    for (subject, text) in [
        ("backend first", "one has more than one backend (backend again too)"),
        ("backend again", "one has more than one backend (backend first too)"),
        ("backend first", "more than one root: one was copied with its marker (backend copied too)"),
        ("backend copied", "more than one root: one was copied with its marker (backend again too)"),
    ] {
        assert_eq!(finding(&sections, subject, text)["severity"], "error");
    }
}

#[test]
fn check_tells_where_no_backend_is_on_this_node() {
    let node = Node::new();
    let none = |sections: &Value| sections[0]["findings"].to_string().contains("none of the backends is on this node");
    let sections = || serde_json::from_str::<Value>(&node.run("check", &["--json"]).1).unwrap();
    assert!(!none(&sections()));
    let text = std::fs::read_to_string(node.path("dunnage.yaml")).unwrap();
    let text = text.replace("/a}", "/a, nodes: [hree]}").replace("/b}", "/b, nodes: [hree]}");
    std::fs::write(node.path("dunnage.yaml"), text).unwrap();
    assert!(none(&sections()));
    assert_eq!(finding(&sections(), "node here", "none of the backends")["severity"], "warning");
}

#[test]
fn check_tells_what_authors_of_pods_may_have() {
    let node = Node::new();
    let text = std::fs::read_to_string(node.path("dunnage.yaml")).unwrap();
    let allowed = "/a, ephemeral: {max_size: 2GiB, parameters: [colour]}}";
    std::fs::write(node.path("dunnage.yaml"), text.replace("/a}", allowed)).unwrap();
    let sections: Value = serde_json::from_str(&node.run("check", &["--json"]).1).unwrap();
    let found = finding(&sections, "backend a", "ephemeral volumes of up to 2 GiB each");
    assert!(found["text"].as_str().unwrap().ends_with("and set colour"), "{found}");
}

#[test]
fn check_sees_who_serves_the_sockets() {
    let node = Node::new();
    let socket = node.path("plugins/a.csi.dunnage.dev/csi.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let sockets = || serde_json::from_str::<Value>(&node.run("check", &["--json"]).1).unwrap();
    assert_eq!(finding(&sockets(), "sockets", "served by another process")["severity"], "error");
    std::fs::create_dir(node.path("state")).unwrap();
    let lock = std::fs::File::create(node.path("state/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(finding(&sockets(), "sockets", "served by the running host")["severity"], "ok");
    assert_eq!(finding(&sockets(), "state", "a running host has locked")["severity"], "ok");
}

#[test]
fn check_changes_nothing() {
    let node = Node::new();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(node.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    node.run("check", &[]);
    assert_eq!(names(), before);
}

#[test]
fn check_of_a_wrong_file_is_a_finding() {
    let node = Node::new();
    node.write("colour: red\n");
    let (status, out, _) = node.run("check", &["--json"]);
    assert_eq!(status, Status::Failure);
    let sections: Value = serde_json::from_str(&out).unwrap();
    finding(&sections, "configuration", "dunnage.yaml:8:1: unknown key `colour`, expected one of");
}

#[test]
fn every_command_and_argument_is_explained() {
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, Status::Success);
    for command in ["init", "check", "schema", "completions"] {
        let line = help.lines().find(|line| line.trim_start().starts_with(command)).unwrap();
        assert!(line.split_whitespace().count() > 3, "{line}");
    }
    let (_, help, _) = run(&["init", "--help"]);
    for text in ["--config <FILE>", "[env: DUNNAGE_CONFIG=", "[BACKEND]...", "Safe to repeat"] {
        assert!(help.contains(text), "{text} in {help}");
    }
}

#[test]
fn wrong_arguments_are_told_on_the_standard_error() {
    for arguments in [&["nope"][..], &[], &["init", "--config", "x", "Not_A_Name"], &["check", "--yaml"]] {
        let (status, out, err) = run(arguments);
        assert_eq!((status, out.as_str()), (Status::Usage, ""), "{arguments:?}");
        assert!(!err.is_empty());
    }
}

#[test]
fn the_schema_is_printed_as_json() {
    let (status, out, _) = run(&["schema"]);
    assert_eq!(status, Status::Success);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), dunnage::config::schema(DRIVERS));
}

/// The program itself.
fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dunnage"));
    program.env_remove("DUNNAGE_CONFIG").env_remove("NODE_NAME").env_remove("CSI_ENDPOINT");
    program
}

#[test]
fn the_program_tells_its_version() {
    let output = program().arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("dunnage ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_vendors_program_has_its_own_name_and_version() {
    let vendor = Program::new("acme-csi", "7.1", DRIVERS.iter().copied());
    let (status, out, _) = run_as(&vendor, &["--version"]);
    assert_eq!(
        (status, out),
        (Status::Success, concat!("acme-csi 7.1 (dunnage ", env!("CARGO_PKG_VERSION"), ")\n").into())
    );
    let (_, help, _) = run_as(&vendor, &["check", "--help"]);
    assert!(help.contains("Usage: acme-csi check"), "{help}");
    let (_, completions, _) = run_as(&vendor, &["completions", "bash"]);
    assert!(completions.contains("acme-csi") && !completions.contains("dunnage"), "{completions}");
}

#[test]
fn the_demo_of_a_vendors_program_says_which_drivers_it_shows() {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Own {}
    impl Driver for Own {
        const NAME: &'static str = "own";
        fn init(&self, _: &Opening) -> Result<Init> {
            Err(Error::precondition("there is nothing to mark"))
        }
        fn open(&self, _: &Opening) -> Result<Backend> {
            Err(Error::precondition("there is nothing behind this driver"))
        }
        fn check(&self, _: &Opening) -> Vec<Finding> {
            Vec::new()
        }
    }
    let (status, out, err) = run_as(&Program::new("own-csi", "1", [DriverEntry::of::<Own>()]), &["demo"]);
    assert_eq!((status, out.as_str()), (Status::Failure, ""));
    assert_eq!(
        err,
        "error: the demo shows the drivers dir and image, and this program has own: try `bench` on a socket that it serves\n"
    );
}

#[test]
fn the_program_completes_its_commands_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("completions"), "{shell}");
    }
}

#[test]
fn the_program_fails_with_status_1_and_names_the_file() {
    let output = program().args(["init", "--config", "/nowhere.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "error: /nowhere.yaml: cannot read it: No such file or directory (os error 2)\n");
    let output = program().arg("init").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_program_takes_its_configuration_from_the_environment() {
    let file = Path::new("/nowhere.yaml");
    let output = program().arg("init").env("DUNNAGE_CONFIG", file).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere.yaml: cannot read it"));
}

#[test]
fn a_reader_that_leaves_is_no_error_to_tell() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = program().arg("schema").stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
