//! The documents say what is so: messages that the program has, and files that are there.

use std::fs;
use std::path::{Path, PathBuf};

/// The shortest piece of a message that tells it from others.
const TELLING: usize = 12;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|own| own == ending) {
            found.push(path);
        }
    }
    found
}

/// The source as the reader of a message knows it: strings of several lines in one, quotes plain.
fn source() -> String {
    let texts = ["src", "drivers"].into_iter().flat_map(|folder| files(&repository().join(folder), "rs"));
    let text: String = texts.map(|path| fs::read_to_string(path).unwrap()).collect();
    let parts = text.split("\\\n").enumerate();
    let joined: String = parts.map(|(number, part)| if number == 0 { part } else { part.trim_start() }).collect();
    joined.replace("\\\"", "\"")
}

/// The messages in the first column of the tables before the part about Kubernetes, whose messages are not ours.
fn messages(page: &str) -> Vec<&str> {
    let ours = page.split("## Kubernetes").next().unwrap();
    let cells = ours.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').step_by(2)).filter(|message| message.len() >= TELLING).collect()
}

#[test]
fn every_message_that_is_explained_is_one_that_the_program_has() {
    let page = fs::read_to_string(repository().join("docs/troubleshoot.md")).unwrap();
    let (source, messages) = (source(), messages(&page));
    assert!(messages.len() > 50, "{messages:?}");
    let pieces =
        messages.iter().flat_map(|message| message.split('…').flat_map(|part| part.split(": ")).map(str::trim));
    let unknown: Vec<_> = pieces.filter(|piece| piece.len() >= TELLING && !source.contains(piece)).collect();
    assert!(unknown.is_empty(), "in no source: {unknown:#?}");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let mut pages = files(&repository().join("docs"), "md");
    pages.extend(["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| repository().join(name)));
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if link.starts_with("https:") || file.is_empty() {
                continue;
            }
            links += 1;
            assert!(page.parent().unwrap().join(file).exists(), "{} links to {link}", page.display());
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn the_steps_of_the_page_for_vendors_are_those_of_the_example() {
    let page = fs::read_to_string(repository().join("docs/write-a-driver.md")).unwrap();
    let example = fs::read_to_string(repository().join("examples/minimal.rs")).unwrap();
    let blocks: Vec<_> = page.split("\n```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 4);
    for block in &blocks[..3] {
        let code = &block[block.find("impl ").unwrap()..];
        // What a step does not hand out yet, the example does.
        let lines = code.lines().filter(|line| !line.contains(".with_") && !line.contains("Backend::new("));
        for line in lines.map(|line| line.replace("Acme", "Minimal").replace("acme", "minimal")) {
            let line = line.trim();
            assert!(line.starts_with("use ") || example.contains(line), "not in the example: {line}");
        }
    }
}

#[test]
fn the_test_of_faults_on_the_page_for_vendors_is_one_that_passes() {
    let page = fs::read_to_string(repository().join("docs/write-a-driver.md")).unwrap();
    let test = fs::read_to_string(repository().join("tests/minimal.rs")).unwrap();
    let mut blocks = page.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains("for_each_operation")).unwrap();
    // The test makes the configuration and keeps the count in its own way.
    let lines = block.lines().map(str::trim).filter(|line| !line.contains("let driver") && !line.is_empty());
    for line in lines {
        assert!(test.contains(line), "not in tests/minimal.rs: {line}");
    }
}
