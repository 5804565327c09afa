//! A demo in which everything happens that can, as it looks.

use super::*;

fn events() -> Vec<Event> {
    let step = |call: &str, text: &str, micros| Event::Step {
        call: call.to_owned(),
        text: text.to_owned(),
        said: None,
        expected: None,
        ok: true,
        micros,
    };
    vec![
        Event::Start {
            version: "0.1.0".to_owned(),
            footing: "root".to_owned(),
            folder: "/tmp/demo".to_owned(),
            drivers: vec!["dir".to_owned(), "image".to_owned()],
            without: Some("nothing".to_owned()),
        },
        Event::Section { title: "A folder".to_owned(), plugin: Some("folders.csi.dunnage.dev".to_owned()) },
        step("CreateVolume", "64 MiB", 412),
        step("ControllerUnpublishVolume", "a long call", 4_120),
        Event::Step {
            call: "CreateVolume".to_owned(),
            text: "refused: INVALID_ARGUMENT".to_owned(),
            said: Some(
                "unknown parameter \"colour\": this driver knows none, so that the word is wrapped here".to_owned(),
            ),
            expected: None,
            ok: true,
            micros: 41_200,
        },
        Event::Step {
            call: "NodeStageVolume".to_owned(),
            text: "NodeStageVolume answered INTERNAL: a text that is too long for its column".to_owned(),
            said: None,
            expected: Some("a mounted volume".to_owned()),
            ok: false,
            micros: 412_000,
        },
        Event::End { steps: 4, failed: 1, interrupted: false, micros: 1_234_000, kept: Some("/tmp/demo".to_owned()) },
    ]
}

fn shown(colour: bool) -> String {
    let mut bytes = Vec::new();
    let mut human = Human::new(&mut bytes, colour);
    events().iter().for_each(|event| human.show(event).unwrap());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_person_reads_aligned_lines() {
    assert_eq!(shown(false), include_str!("golden.txt"));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let coloured = shown(true);
    assert!(coloured.contains("\x1b[32m✓\x1b[0m") && coloured.contains("\x1b[31m✗\x1b[0m"));
    let plain: String = coloured
        .split('\x1b')
        .enumerate()
        .map(|(number, part)| if number == 0 { part } else { part.split_once('m').unwrap().1 })
        .collect();
    assert_eq!(plain, shown(false));
}

#[test]
fn a_program_reads_one_object_a_line() {
    let mut bytes = Vec::new();
    let mut lines = Lines(&mut bytes);
    events().iter().for_each(|event| lines.show(event).unwrap());
    let objects: Vec<serde_json::Value> =
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), events().len());
    assert_eq!(objects[5]["event"], "step");
    assert_eq!(objects[5]["ok"], false);
    assert_eq!(objects[5]["expected"], "a mounted volume");
    assert_eq!(objects[6]["failed"], 1);
}

#[test]
fn times_have_three_digits_that_count() {
    for (micros, text) in [(7, "7 µs"), (999, "999 µs"), (1_234, "1.23 ms"), (12_340, "12.3 ms"), (2_500_000, "2.50 s")]
    {
        assert_eq!(duration(micros), text);
    }
}
