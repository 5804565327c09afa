//! What is said of a wrong file.

use proptest::prelude::*;

use crate::config::{FOUR_BACKENDS, parse};

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_of_a_right_file_makes_the_reader_panic(at in 0..FOUR_BACKENDS.len(), length in 0..40_usize, new in any::<String>()) {
        let mut text = FOUR_BACKENDS.to_owned();
        text.replace_range(at..(at + length).min(FOUR_BACKENDS.len()), &new);
        let _ = parse(&text);
    }
}

#[test]
fn deep_nesting_and_bombs_of_aliases_are_refused() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        format!(
            "a: &a {{x: [{}]}}\n{}",
            "1, ".repeat(1000),
            (0..10_000).map(|i| format!("k{i}: *a\n")).collect::<String>()
        ),
    ] {
        assert!(parse(&text).is_err());
    }
}

/// Wrong files and what is said of them. A backend `a` and its line 2 are put in front of each.
#[test]
fn what_is_wrong_is_told_with_its_line_and_the_remedy() {
    let base = "backends:\n  - {name: a, driver: dir, root: /a}\n";
    for (more, expected) in WRONG {
        let text = format!("{base}{more}");
        assert_eq!(parse(&text).err().unwrap_or_else(|| panic!("accepted: {text}")), *expected, "{text}");
    }
    for (text, expected) in WRONG_AS_A_WHOLE {
        assert_eq!(parse(text).err().unwrap_or_else(|| panic!("accepted: {text}")), *expected, "{text}");
    }
}

const WRONG: &[(&str, &str)] = &[
    (
        "  - {name: a, driver: dir, root: /b}",
        "line 3, column 6: the backend in line 2 has the name \"a\" too: give each its own",
    ),
    ("  - {name: b, driver: dri, root: /b}", "line 3, column 15: unknown driver \"dri\": this program has dir, image"),
    ("  - {name: b, root: /b}", "line 3, column 5: missing key `driver`: this program has dir, image"),
    ("  - {driver: dir, root: /b}", "line 3, column 5: missing key `name`"),
    (
        "  - name: b\n    driver: dir\n    rot: /b",
        "line 5, column 5: unknown key `rot`, expected `root` or `quota`; or a key of every backend: `changed_block_size`, `csi_name`, `driver`, `ephemeral`, `init`, `name`, `nodes`, `workers`",
    ),
    ("  - {name: b, driver: dir, root: 5}", "line 3, column 28: 5 is not a path: put it in quotes"),
    (
        "  - {name: b, driver: dir, root: /b, quota: some}",
        "line 3, column 38: unknown value `some`, expected `project` or `none`",
    ),
    ("  - {name: b, driver: dir}", "line 3, column 5: missing key `root`"),
    (
        "  - {name: B, driver: dir, root: /b}",
        "line 3, column 6: \"B\" is no name of a backend: use 1 to 42 of a-z, 0-9 and -, with a letter or digit at both ends",
    ),
    ("  - {name: 7, driver: dir, root: /b}", "line 3, column 6: 7 is not a text: put it in quotes"),
    (
        "  - {name: b, driver: dir, root: /b, nodes: []}",
        "line 3, column 38: `nodes` is empty, so that no node has the store: name one, or leave out `nodes`",
    ),
    (
        "  - {name: b, driver: dir, root: /b, nodes: [x, /y]}",
        "line 3, column 49: \"/y\" is no name of a node: use 1 to 253 letters, digits, '-', '.', '_', with a letter or digit at both ends",
    ),
    (
        "  - {name: b, driver: dir, root: /b, workers: {threads: 0}}",
        "line 3, column 48: 0 is not a whole number from 1 to 65535",
    ),
    ("  - {name: b, driver: dir, root: /b, init: yes}", "line 3, column 38: \"yes\" is not true or false"),
    ("  - {name: b, driver: dir, root: /b, nodes: here}", "line 3, column 38: \"here\" is not a list"),
    (
        "  - {name: b, driver: dir, root: /b, workers: {threads: 9, total: 8}}",
        "line 3, column 38: `total` 8 is below `threads` 9: make it at least as many",
    ),
    ("  - {name: b, driver: dir, root: /b, ephemeral: {}}", "line 3, column 38: missing key `max_size`"),
    (
        "  - {name: b, driver: dir, root: /b, ephemeral: {max_size: 1.5GiB}}",
        "line 3, column 50: \"1.5GiB\" is no size: write a whole number of bytes, or one with a unit: 512MiB, 10GiB, 1TB",
    ),
    (
        "  - {name: b, driver: dir, root: /b, changed_block_size: 48KiB}",
        "line 3, column 38: 48 KiB is no size of blocks: write a power of 2 from 512 to 1GiB, as 64KiB",
    ),
    (
        "  - {name: b, driver: dir, root: /b, csi_name: b_c}",
        "line 3, column 38: \"b_c\" is no CSI name: use 1 to 63 of a-z, A-Z, 0-9, - and ., in the form of a domain name, with a letter or digit at both ends of each label",
    ),
    (
        "  - {name: b, driver: dir, root: /b, csi_name: A.csi.dunnage.dev}",
        "line 3, column 38: the plugin of line 2 has the CSI name \"A.csi.dunnage.dev\" too: give each its own",
    ),
    ("  - b", "line 3, column 5: \"b\" is not a map of keys"),
    ("plugins: [{csi_name: p, backends: [a, b]}]", "line 3, column 39: there is no backend \"b\": there are a"),
    (
        "plugins: [{csi_name: p, backends: [a, a]}]",
        "line 3, column 39: the backend \"a\" is in the plugin of line 3 already: name it once",
    ),
    (
        "plugins:\n  - {csi_name: p, backends: [a]}\n  - {csi_name: q, backends: [a]}",
        "line 5, column 30: the backend \"a\" is in the plugin of line 4 already: name it once",
    ),
    (
        "plugins: [{csi_name: p, backends: []}]",
        "line 3, column 25: a plugin needs a backend: name one, or leave it out",
    ),
    (
        "  - {name: b, driver: dir, root: /b, csi_name: b}\nplugins: [{csi_name: p, backends: [b]}]",
        "line 3, column 38: the backend \"b\" is behind the plugin p and has no CSI name of its own: remove this key, or the backend from `plugins`",
    ),
    (
        "  - {name: b, driver: dir, root: /b, csi_name: p}\nplugins: [{csi_name: p, backends: [a]}]",
        "line 4, column 12: the plugin of line 3 has the CSI name \"p\" too: give each its own",
    ),
    (
        "stat: /x",
        "line 3, column 1: unknown key `stat`, expected one of `state`, `sockets`, `node`, `mode`, `telemetry`, `log`, `drain_seconds`, `backends`, `plugins`",
    ),
    ("state: x", "line 3, column 1: \"x\" is no absolute path: begin it with / and leave out .."),
    ("state: /x/../y", "line 3, column 1: \"/x/../y\" is no absolute path: begin it with / and leave out .."),
    ("mode: both", "line 3, column 1: unknown value `both`, expected one of `all`, `controller`, `node`"),
    ("log: {}", "line 3, column 1: a map of keys is not a word"),
    ("drain_seconds: 5s", "line 3, column 1: \"5s\" is not a whole number from 0 to 4294967295"),
    ("telemetry: {listen: 9095}", "line 3, column 13: 9095 is not a text: put it in quotes"),
    (
        "telemetry: {listen: localhost}",
        "line 3, column 13: \"localhost\" is no address: write IP:PORT, as 127.0.0.1:9095 or \"[::1]:9095\", or off",
    ),
    ("telemetry:", "line 3, column 1: there is no value: write a map with the key `listen`"),
    ("node: 7", "line 3, column 1: 7 is not a text: put it in quotes"),
    ("mode: all\nmode: node", "line 4, column 1: duplicate mapping key `mode` is not allowed here"),
    ("---\nmode: all", "line 4, column 1: only single YAML document expected but multiple found"),
    ("mode: [all", "line 3, column 7: unclosed bracket '['"),
    ("mode: *all", "line 3, column 7: reference to unknown value"),
    (
        "\"sockets\": /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "line 2, column 6: the socket /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/a.csi.dunnage.dev/csi.sock has a path of 119 bytes, at most 106 are possible: choose a shorter `csi_name` or `sockets`",
    ),
];

const WRONG_AS_A_WHOLE: &[(&str, &str)] = &[
    ("", "line 1, column 1: there is no value: write a map of keys, as `backends:`"),
    ("a", "line 1, column 1: \"a\" is not a map of keys, as `backends:`"),
    ("mode: all", "line 1, column 1: missing key `backends`"),
    ("mode: all\nbackends: []", "line 2, column 1: there is no backend: add one with a `name` and a `driver`"),
];
