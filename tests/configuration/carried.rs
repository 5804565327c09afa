//! A store in the configuration of a driver that carries it.

use dunnage::config::{Config, Environment, schema};

fn parse(text: &str) -> Result<Config, String> {
    let environment = Environment { host_name: "host-1".into(), ..Environment::default() };
    Config::parse(text, &dunnage::drivers(), &environment).map_err(|error| error.to_string())
}

/// A backend whose `store` stands in line 7.
fn with(store: &str) -> String {
    format!(
        "backends:\n  - name: fast\n    driver: nvme-tcp\n    nodes: [storage-1]\n    address: 10.0.0.1\n    grants: /srv/grants\n    \
         store: {store}"
    )
}

#[test]
fn a_store_is_a_driver_with_its_own_keys() {
    for store in
        ["{driver: image, root: /srv/images}", "{driver: lvm, vg: vg, devices: [/dev/sdb], type: thin, pool: pool}"]
    {
        let config = parse(&with(store)).unwrap();
        let backend = &config.backends[0];
        assert!(store.contains(backend.store.unwrap()) && backend.driver == "nvme-tcp");
        assert!(backend.has_store(&"storage-1".parse().unwrap()) && !backend.has_store(&config.node));
        assert!(backend.is_on(&config.node, dunnage::config::Mode::All), "every node has the node half");
    }
}

#[test]
fn what_is_wrong_in_a_store_is_told_with_its_line() {
    for (store, said) in [
        ("{driver: image, root: srv}", "line 7, column 28: root \"srv\" is not an absolute path"),
        ("{driver: image, rot: /srv}", "line 7, column 28: unknown key `rot`"),
        ("{driver: image}", "line 7, column 5: missing key `root`"),
        ("{driver: image, root: /srv, name: a}", "line 7, column 40: unknown key `name`"),
        ("{driver: lvm, vg: vg, devices: [/dev/sdb], type: thin}", "line 7, column 55: type thin needs a pool"),
        ("{root: /srv}", "line 7, column 5: missing key `driver`: use image or lvm"),
        ("{driver: 7}", "line 7, column 13: `driver` must be a name: use image or lvm"),
        ("{driver: zfs}", "line 7, column 13: unknown driver \"zfs\": use image or lvm"),
        (
            "{driver: dir, root: /srv}",
            "line 7, column 13: volumes of driver \"dir\" are no block devices, which nvme-tcp",
        ),
        ("{driver: nvme-tcp}", "line 7, column 13: volumes of driver \"nvme-tcp\" are no block devices"),
        ("/srv", "line 7, column 5: `store` must be a map with the key `driver`"),
    ] {
        let error = parse(&with(store)).err().unwrap_or_else(|| panic!("accepted: {store}"));
        assert!(error.starts_with(said), "{store}: {error}");
    }
}

#[test]
fn what_does_not_go_with_a_store_is_told() {
    let store = with("{driver: image, root: /srv}");
    for (from, to, said) in [
        ("    nodes: [storage-1]\n", "", "line 2, column 5: the store is on one node"),
        ("[storage-1]", "[storage-1, storage-2]", "line 4, column 5: the store is on one node"),
        ("    grants: /srv/grants\n", "", "line 2, column 5: missing key `grants`"),
        (
            "    grants: /srv/grants\n",
            "    ephemeral: {max_size: 1GiB}\n",
            "line 6, column 5: volumes that are attached",
        ),
        ("10.0.0.1", "storage.example.com", "line 5, column 5: "),
        ("address:", "addres:", "line 5, column 5: unknown key `addres`"),
    ] {
        let error = parse(&store.replace(from, to)).err().unwrap_or_else(|| panic!("accepted: {to}"));
        assert!(error.starts_with(said), "{to}: {error}");
    }
    let plain = "backends: [{name: a, driver: image, root: /srv, store: {driver: image, root: /x}}]";
    assert!(parse(plain).err().unwrap().contains("unknown key `store`"));
}

#[test]
fn what_is_attached_and_what_is_on_one_node_have_csi_names_of_their_own() {
    let with_another = |other: &str| {
        let store = with("{driver: image, root: /srv}");
        parse(&format!("{store}\n  - {other}\nplugins: [{{csi_name: all.example.com, backends: [fast, other]}}]"))
    };
    let error = with_another("{name: other, driver: image, root: /x}").err().unwrap();
    assert!(error.starts_with("line 9, column 56: volumes of backend \"other\" are on one node"), "{error}");
    with_another("{name: other, driver: nfs, server: 10.0.0.2, export: /srv, quota: none}").unwrap();
}

#[test]
fn a_backend_without_a_store_needs_an_instance() {
    let backend = |rest: &str| format!("backends: [{{name: a, driver: nvme-tcp, address: 10.0.0.1{rest}}}]");
    assert!(parse(&backend("")).err().unwrap().contains("missing key `instance`"));
    assert_eq!(parse(&backend(&format!(", instance: {}", "a".repeat(26)))).unwrap().backends[0].store, None);
}

#[test]
fn the_schema_knows_every_store() {
    let schema = schema(&dunnage::drivers());
    let store = &schema["$defs"]["backend.nvme-tcp"]["properties"]["store"];
    let stores: Vec<_> = store["oneOf"].as_array().unwrap().iter().filter_map(|one| one["$ref"].as_str()).collect();
    assert_eq!(stores, ["#/$defs/store.image", "#/$defs/store.lvm"]);
    assert!(store["description"].is_string());
    for (name, key) in [("store.image", "root"), ("store.lvm", "vg")] {
        let store = &schema["$defs"][name];
        assert_eq!(store["additionalProperties"], false);
        assert_eq!(store["properties"]["driver"]["const"], name.strip_prefix("store.").unwrap());
        let required: Vec<_> = store["required"].as_array().unwrap().iter().filter_map(|key| key.as_str()).collect();
        assert!(required.contains(&"driver") && required.contains(&key), "{required:?}");
        assert!(store["properties"].get("csi_name").is_none() && store["properties"].get("nodes").is_none());
    }
}
