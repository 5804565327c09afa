//! The report as build servers read it.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::{Outcome, Report, Verdict};

/// The report as JUnit XML: a suite with one test case for each rule. Warnings pass, with their text as output.
///
/// # Errors
/// None that memory does not make.
pub fn junit(report: &Report) -> io::Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let suite = writer
        .create_element("testsuite")
        .with_attribute(("name", plain(&format!("CSI conformance of {}", report.plugin)).as_str()))
        .with_attribute(("tests", report.cases.len().to_string().as_str()))
        .with_attribute(("failures", report.failed.to_string().as_str()))
        .with_attribute(("skipped", report.skipped.to_string().as_str()))
        .with_attribute(("time", seconds(report.micros).as_str()));
    suite.write_inner_content(|writer| report.cases.iter().try_for_each(|outcome| case(writer, outcome)))?;
    String::from_utf8(writer.into_inner()).map_err(io::Error::other)
}

fn case(writer: &mut Writer<Vec<u8>>, outcome: &Outcome) -> io::Result<()> {
    let element = writer
        .create_element("testcase")
        .with_attribute(("classname", outcome.section))
        .with_attribute(("name", outcome.name))
        .with_attribute(("time", seconds(outcome.micros).as_str()));
    match &outcome.verdict {
        Verdict::Passed => element.write_empty().map(drop),
        Verdict::Failed(failure) => element
            .write_inner_content(|writer| {
                let text = plain(&failure.to_string());
                let failed = writer.create_element("failure").with_attribute((
                    "message",
                    plain(&format!("came {}, wanted {}", failure.came, failure.wants)).as_str(),
                ));
                failed.write_text_content(BytesText::new(&text)).map(drop)
            })
            .map(drop),
        Verdict::Warned(failure) => element
            .write_inner_content(|writer| {
                let text = plain(&failure.to_string());
                writer.create_element("system-out").write_text_content(BytesText::new(&text)).map(drop)
            })
            .map(drop),
        Verdict::Skipped { reason } => element
            .write_inner_content(|writer| {
                writer
                    .create_element("skipped")
                    .with_attribute(("message", plain(reason).as_str()))
                    .write_empty()
                    .map(drop)
            })
            .map(drop),
    }
}

/// XML 1.0 has no way to write most control characters, and a plugin may put them into a message.
fn plain(text: &str) -> String {
    let allowed = |letter: &char| matches!(letter, '\t' | '\n' | '\r') || !letter.is_control();
    text.chars().filter(|letter| allowed(letter) && !matches!(letter, '\u{fffe}' | '\u{ffff}')).collect()
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Failure, Strength};

    #[test]
    fn what_a_plugin_says_is_escaped_and_every_case_is_counted() {
        let failure = Failure { sent: "<a & \"b\">".into(), came: "\u{1}]]>".into(), wants: "'<'".into() };
        let outcome = |verdict| Outcome {
            name: "area/rule",
            section: "Section",
            strength: Strength::Must,
            verdict,
            micros: 1_500_000,
        };
        let skipped = Verdict::Skipped { reason: "not \"advertised\"".into() };
        let mut report = Report {
            plugin: "p<x>".into(),
            version: "1".into(),
            seed: 1,
            interrupted: false,
            passed: 0,
            failed: 0,
            warned: 0,
            skipped: 0,
            micros: 2,
            notes: Vec::new(),
            cases: vec![outcome(Verdict::Passed), outcome(Verdict::Failed(failure.clone())), outcome(skipped)],
        };
        report.cases.push(outcome(Verdict::Warned(failure)));
        report.count();
        let text = junit(&report).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let suite = document.root_element();
        assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some("4"), Some("1")));
        let failure = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert_eq!(failure.attribute("message"), Some("came ]]>, wanted '<'"));
        assert_eq!(failure.text(), Some("sent: <a & \"b\">\ncame: ]]>\nwants: '<'"));
    }
}
