//! What a right file says.

use dunnage::config::{Config, Environment, Mode};

use crate::stand_ins::DRIVERS;

const EXAMPLE: &str = include_str!("../../docs/config.example.yaml");

pub(crate) const FOUR_BACKENDS: &str = "\
state: /var/lib/dunnage
sockets: /var/lib/kubelet/plugins        # <sockets>/<csi name>/csi.sock
node: node-7                             # default: $NODE_NAME, then the host name
backends:
  - name: scratch                        # CSI name: scratch.csi.dunnage.dev
    driver: dir
    root: /srv/scratch
    quota: none
  - name: disks
    driver: image
    root: /srv/images
    csi_name: disks.storage.example.com
  - {name: warm, driver: dir, root: /srv/warm, quota: none}
  - {name: cold, driver: image, root: /srv/cold}
plugins:                                 # these two have no socket of their own
  - csi_name: all.csi.dunnage.dev
    backends: [warm, cold]
";

fn environment() -> Environment {
    Environment { host_name: "host-1".into(), ..Environment::default() }
}

pub(crate) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, DRIVERS, &environment()).map_err(|error| error.to_string())
}

fn sockets(config: &Config) -> Vec<(&str, &str)> {
    config.plugins.iter().map(|plugin| (plugin.csi_name.as_str(), plugin.socket.to_str().unwrap())).collect()
}

#[test]
fn each_backend_is_a_plugin_unless_plugins_names_it() {
    let config = parse(FOUR_BACKENDS).unwrap();
    assert_eq!(config.node.as_str(), "node-7");
    assert_eq!(
        sockets(&config),
        [
            ("scratch.csi.dunnage.dev", "/var/lib/kubelet/plugins/scratch.csi.dunnage.dev/csi.sock"),
            ("disks.storage.example.com", "/var/lib/kubelet/plugins/disks.storage.example.com/csi.sock"),
            ("all.csi.dunnage.dev", "/var/lib/kubelet/plugins/all.csi.dunnage.dev/csi.sock"),
        ]
    );
    assert_eq!(config.plugins[2].backends, [2, 3]);
    assert_eq!(config.plugins.iter().map(|plugin| plugin.shared).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(
        config.backends.iter().map(|backend| backend.driver).collect::<Vec<_>>(),
        ["dir", "image", "dir", "image"]
    );
}

#[test]
fn one_backend_is_enough() {
    let config = parse("backends: [{name: a, driver: dir, root: /a, quota: none}]").unwrap();
    assert_eq!(config.node.as_str(), "host-1");
    assert_eq!(config.mode, Mode::All);
    assert_eq!(config.state.to_str(), Some("/var/lib/dunnage"));
    assert_eq!(config.telemetry.unwrap().to_string(), "127.0.0.1:9095");
    assert_eq!(config.drain.as_secs(), 20);
    assert_eq!((config.backends[0].workers.threads.get(), config.backends[0].workers.total.get()), (16, 64));
    assert!(config.backends[0].ephemeral.is_none() && !config.backends[0].init);
    assert!(config.backends[0].is_on(&"anywhere".parse().unwrap(), Mode::All));
}

#[cfg(all(feature = "btrfs", feature = "dir", feature = "disk", feature = "image", feature = "lvm"))]
#[test]
fn the_example_of_the_documentation_is_right_and_shows_every_key() {
    Config::parse(EXAMPLE, &dunnage::drivers(), &environment()).unwrap();
    let schema = dunnage::config::schema(&dunnage::drivers());
    let keys = keys(&schema);
    assert!(keys.len() > 30, "{keys:?}");
    for (object, key) in keys {
        let key_colon = format!("{key}:");
        let written = |line: &str| {
            let line = line.split('#').next().unwrap_or(line);
            line.split([' ', '{', '[']).any(|word| word == key_colon)
        };
        assert!(EXAMPLE.lines().any(written), "{key} of {object} is not in the example");
    }
}

/// Every key that the file can have, with the definition that it is in.
fn keys(schema: &serde_json::Value) -> Vec<(String, String)> {
    let definitions = schema["$defs"].as_object().unwrap();
    std::iter::once(("the file", schema))
        .chain(definitions.iter().map(|(name, definition)| (name.as_str(), definition)))
        .filter_map(|(name, object)| Some((name, object["properties"].as_object()?)))
        .flat_map(|(name, properties)| properties.keys().map(move |key| (name.to_owned(), key.clone())))
        .collect()
}

#[cfg(all(feature = "dir", feature = "image"))]
#[test]
fn the_schema_tells_the_default_of_every_key_that_has_one() {
    let schema = dunnage::config::schema(&dunnage::drivers());
    let default = |backend: &str, key: &str| schema["$defs"][backend]["properties"][key]["default"].clone();
    assert_eq!(default("backend.image", "allocation"), "sparse");
    assert_eq!(default("backend.image", "overcommit"), 1.0);
    assert_eq!(default("backend.image", "block_size"), 4096);
    assert_eq!(default("backend.dir", "mode"), "0777");
    assert_eq!(
        default("backend.dir", "project_ids"),
        serde_json::json!({"first": 1_000_000_000, "last": 1_999_999_999})
    );
}

#[cfg(all(feature = "dir", feature = "image"))]
#[test]
fn what_no_later_try_mends_is_told_with_its_line() {
    for (backend, key, said) in [
        ("driver: dir, quota: none, root: srv/x", "root", "root \"srv/x\" is not an absolute path: begin it with /"),
        ("driver: image, root: srv/x", "root", "root \"srv/x\" is not an absolute path"),
        ("driver: dir, root: /srv/x", "{name", "missing key `quota`: say `quota: project`"),
        (
            "driver: image, root: /x, allocation: preallocated, overcommit: 2",
            "overcommit",
            "overcommit 2 with allocation preallocated",
        ),
    ] {
        let text = format!("backends: [{{name: a, {backend}}}]");
        let error = Config::parse(&text, &dunnage::drivers(), &environment()).err().unwrap().to_string();
        let column = text.find(key).unwrap() + 1;
        assert!(error.starts_with(&format!("line 1, column {column}: {said}")), "{error}");
    }
}

#[test]
fn the_schema_knows_the_keys_of_the_host_and_of_every_driver() {
    let schema = dunnage::config::schema(DRIVERS);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["backends"]));
    assert_eq!(
        schema["properties"]["backends"]["items"],
        serde_json::json!({"oneOf": [{"$ref": "#/$defs/backend.dir"}, {"$ref": "#/$defs/backend.image"}]})
    );
    let dir = &schema["$defs"]["backend.dir"];
    assert_eq!(dir["additionalProperties"], false);
    assert_eq!(dir["properties"]["driver"]["const"], "dir");
    for key in ["name", "csi_name", "nodes", "workers", "ephemeral", "init", "root", "quota"] {
        assert!(dir["properties"][key].is_object(), "{key} in {dir:#}");
    }
    for key in ["name", "driver", "root"] {
        assert!(dir["required"].as_array().unwrap().contains(&key.into()), "{key} in {dir:#}");
    }
    for reference in references(&schema) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(schema.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references(value: &serde_json::Value) -> Vec<&str> {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(text) if key == "$ref" => vec![text],
                _ => references(value),
            })
            .collect(),
        serde_json::Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn csi_endpoint_is_the_socket_of_the_one_plugin() {
    let one = "backends: [{name: a, driver: dir, root: /a}, {name: b, driver: dir, root: /b}]
plugins: [{csi_name: ab.example.com, backends: [a, b]}]";
    // A longer one than this could not be made.
    let longest = format!("/{}", "a".repeat(dunnage::server::Socket::PATH_LIMIT - 1));
    let environment_of = |endpoint: &str| Environment { csi_endpoint: Some(endpoint.into()), ..environment() };
    assert_eq!(sockets(&Config::parse(one, DRIVERS, &environment_of(&longest)).unwrap())[0].1, longest);
    for endpoint in ["unix:///csi/csi.sock", "unix:/csi/csi.sock", "/csi/csi.sock"] {
        let environment = Environment { csi_endpoint: Some(endpoint.into()), ..environment() };
        let config = Config::parse(one, DRIVERS, &environment).unwrap();
        assert_eq!(sockets(&config), [("ab.example.com", "/csi/csi.sock")], "{endpoint}");
    }
    for endpoint in ["tcp://127.0.0.1:1", "csi.sock", "unix://csi.sock", "/", &format!("/{}", "a".repeat(106))] {
        let environment = Environment { csi_endpoint: Some(endpoint.into()), ..environment() };
        let error = Config::parse(one, DRIVERS, &environment).err().unwrap().to_string();
        assert!(error.starts_with("the environment variable CSI_ENDPOINT is "), "{error}");
    }
}

#[test]
fn csi_endpoint_is_refused_where_there_are_several_plugins() {
    let environment = Environment { csi_endpoint: Some("/csi/csi.sock".into()), ..environment() };
    let error = Config::parse(FOUR_BACKENDS, DRIVERS, &environment).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the environment variable CSI_ENDPOINT names one socket, and there are 3 plugins (scratch.csi.dunnage.dev, \
         disks.storage.example.com, all.csi.dunnage.dev): unset it, or put all backends behind one plugin in `plugins`"
    );
}

#[test]
fn the_node_is_named_by_the_file_then_by_node_name_then_by_the_host_name() {
    let from_variable = Environment { node_name: Some("n".repeat(253)), ..environment() };
    let text = "backends: [{name: a, driver: dir, root: /a}]";
    assert_eq!(Config::parse(text, DRIVERS, &from_variable).unwrap().node.as_str().len(), 253);
    assert_eq!(Config::parse(FOUR_BACKENDS, DRIVERS, &from_variable).unwrap().node.as_str(), "node-7");
    let wrong = Environment { node_name: Some("n/1".into()), ..environment() };
    let error = Config::parse(text, DRIVERS, &wrong).err().unwrap().to_string();
    assert!(error.starts_with("the environment variable NODE_NAME names this node: \"n/1\" is no name"), "{error}");
}

#[test]
fn a_file_is_named_in_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dunnage.yaml");
    let error = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        Config::load(&file, DRIVERS).err().unwrap().to_string()
    };
    assert!(error(b"backends: 1").starts_with(&format!("{}:1:1: 1 is not a list", file.display())));
    assert!(error(&[0xff]).contains("cannot read it"));
    assert!(error(&vec![b'#'; (1 << 20) + 1]).contains("larger than 1048576 bytes"));
    let missing = Config::load(&folder.path().join("none"), DRIVERS).err().unwrap().to_string();
    assert!(missing.contains("none: cannot read it: No such file"), "{missing}");
}

#[test]
fn every_key_of_our_own_drivers_is_documented_and_no_other_is_taken() {
    for driver in dunnage::drivers() {
        let schema = (driver.schema)().to_value();
        assert_eq!(schema["additionalProperties"], false, "{}", driver.name);
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{key} of {}", driver.name);
        }
    }
}

#[cfg(all(feature = "btrfs", feature = "dir", feature = "disk", feature = "image", feature = "lvm"))]
#[test]
fn our_own_drivers_take_the_example_of_the_documentation() {
    for text in [EXAMPLE, FOUR_BACKENDS] {
        Config::parse(text, &dunnage::drivers(), &environment()).unwrap();
    }
}
