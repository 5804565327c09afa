//! The files in `deploy` say what they promise.

use std::path::Path;
use std::process::Command;

use dunnage::config::{Config, Environment};
use dunnage_test_common::{Need, can_run};
use serde_json::Value;

const MANIFEST: &str = include_str!("../../deploy/daemonset.yaml");
const UNIT: &str = include_str!("../../deploy/dunnage.service");

/// The object of this kind.
fn object(kind: &str) -> Value {
    let all: Vec<Value> = serde_saphyr::from_multiple(MANIFEST).expect("it is no YAML");
    let mut found = all.into_iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several of {kind}");
    first
}

/// The entry of this name in a list.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut entries = list.as_array().expect("it is no list").iter();
    entries.find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("there is no {name} in {list}"))
}

fn pod() -> Value {
    object("DaemonSet")["spec"]["template"]["spec"].clone()
}

/// The configuration in it, as the program reads it.
fn configuration() -> Config {
    let text = object("ConfigMap")["data"]["dunnage.yaml"].as_str().expect("no configuration").to_owned();
    let environment = Environment { host_name: "node-7".into(), ..Environment::default() };
    Config::parse(&text, &dunnage::drivers(), &environment).map_err(|error| error.to_string()).unwrap()
}

/// The comment before the first line that has `text`.
fn reason_of(text: &str) -> Vec<&'static str> {
    let before = MANIFEST.lines().take_while(|line| !line.contains(text)).collect::<Vec<_>>();
    before.into_iter().rev().take_while(|line| line.trim_start().starts_with('#')).collect()
}

#[test]
fn a_new_host_comes_after_the_old_one_has_had_its_time_to_drain() {
    let update = &object("DaemonSet")["spec"]["updateStrategy"];
    assert_eq!((&update["type"], &update["rollingUpdate"]["maxSurge"]), (&"RollingUpdate".into(), &0.into()));
    let grace = pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > configuration().drain.as_secs(), "killed after {grace} s, while it drains");
}

#[test]
fn what_the_container_may_has_its_reason_beside_it() {
    let pod = pod();
    let host = named(&pod["containers"], "dunnage");
    for right in ["privileged", "readOnlyRootFilesystem"] {
        assert_eq!(host["securityContext"][right], true, "{right}");
        assert!(!reason_of(&format!("{right}: true")).is_empty(), "{right} has no reason");
    }
    for sidecar in ["registrar", "provisioner"] {
        let context = &named(&pod["containers"], sidecar)["securityContext"];
        assert_eq!((&context["privileged"], &context["readOnlyRootFilesystem"]), (&Value::Null, &true.into()));
    }
    // The token is for the provisioner alone.
    assert_eq!(object("ServiceAccount")["automountServiceAccountToken"], false);
    for container in pod["containers"].as_array().unwrap() {
        let has_token = container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["name"] == "token");
        assert_eq!(has_token, container["name"] == "provisioner", "{}", container["name"]);
    }
}

#[test]
fn the_kubelet_probes_the_process_and_its_sockets_where_they_are_served() {
    let (pod, address) = (pod(), configuration().telemetry.expect("no telemetry"));
    let host = named(&pod["containers"], "dunnage");
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let http = &host[probe]["httpGet"];
        assert_eq!((&http["path"], &http["port"]), (&path.into(), &address.port().into()));
        assert_eq!(http["host"].as_str(), Some(address.ip().to_string().as_str()));
    }
    assert_eq!(pod["hostNetwork"], true, "the loopback of the node is not that of the pod");
}

#[test]
fn mounts_outlive_the_container_and_a_missing_disk_is_not_made() {
    let (pod, config) = (pod(), configuration());
    let host = named(&pod["containers"], "dunnage");
    let mount = |name: &str| named(&host["volumeMounts"], name).clone();
    let folder = |name: &str| named(&pod["volumes"], name)["hostPath"].clone();
    assert_eq!(mount("kubelet")["mountPropagation"], "Bidirectional");
    for name in ["kubelet", "dev", "scratch"] {
        assert_eq!(folder(name)["type"], "Directory", "{name}");
        assert_eq!(folder(name)["path"], mount(name)["mountPath"], "{name}");
    }
    assert_eq!(mount("scratch")["mountPropagation"], "HostToContainer");
    let text = object("ConfigMap")["data"]["dunnage.yaml"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("root: {}\n", mount("scratch")["mountPath"].as_str().unwrap())), "{text}");
    assert!(config.backends.iter().all(|backend| !backend.init), "a root is marked without its disk");
    assert!(MANIFEST.contains("-- dunnage init --config /etc/dunnage/dunnage.yaml"), "it does not say how to init");
    assert_eq!(mount("state")["mountPath"].as_str().map(Path::new), Some(config.state.as_path()));
    let kubelet = mount("kubelet")["mountPath"].as_str().unwrap().to_owned();
    assert!(
        config.plugins.iter().all(|plugin| plugin.socket.starts_with(&kubelet)),
        "a socket goes with the container"
    );
}

#[test]
fn the_driver_object_claims_what_somebody_does() {
    let (pod, config, driver) = (pod(), configuration(), object("CSIDriver"));
    let [plugin] = &config.plugins[..] else { panic!("a registrar is missing") };
    assert_eq!(driver["metadata"]["name"], plugin.csi_name.as_str());
    assert_eq!(object("StorageClass")["provisioner"], plugin.csi_name.as_str());
    let arguments = |name: &str| -> Vec<String> {
        serde_json::from_value(named(&pod["containers"], name)["args"].clone()).unwrap()
    };
    let socket = plugin.socket.display();
    for sidecar in ["registrar", "provisioner"] {
        assert!(arguments(sidecar).contains(&format!("--csi-address={socket}")), "{sidecar}");
    }
    let publishes = arguments("provisioner").contains(&"--enable-capacity=true".to_owned());
    assert_eq!(driver["spec"]["storageCapacity"], publishes);
    let modes: Vec<String> = serde_json::from_value(driver["spec"]["volumeLifecycleModes"].clone()).unwrap();
    let ephemeral = config.backends.iter().any(|backend| backend.ephemeral.is_some());
    assert_eq!(modes.contains(&"Ephemeral".to_owned()), ephemeral, "{modes:?}");
    let containers = pod["containers"].as_array().unwrap();
    let resizes = containers.iter().any(|container| container["name"] == "resizer");
    assert_eq!(object("StorageClass")["allowVolumeExpansion"], resizes);
}

#[cfg(all(feature = "image", feature = "nvme-tcp"))]
#[test]
fn volumes_of_one_node_are_attached_by_who_is_beside_their_controller() {
    const MANIFEST: &str = include_str!("../../deploy/nvme-tcp.yaml");
    let all: Vec<Value> = serde_saphyr::from_multiple(MANIFEST).expect("it is no YAML");
    let of_kind = |kind: &str| -> Vec<&Value> { all.iter().filter(|object| object["kind"] == kind).collect() };
    let text = of_kind("ConfigMap")[0]["data"]["dunnage.yaml"].as_str().unwrap();
    let environment = Environment { host_name: "node-7".into(), ..Environment::default() };
    let config = Config::parse(text, &dunnage::drivers(), &environment).map_err(|error| error.to_string()).unwrap();
    let [plugin] = &config.plugins[..] else { panic!("a registrar is missing") };
    let driver = of_kind("CSIDriver")[0];
    assert_eq!(
        (&driver["metadata"]["name"], &driver["spec"]["attachRequired"]),
        (&plugin.csi_name.as_str().into(), &true.into())
    );
    assert_eq!(of_kind("StorageClass")[0]["provisioner"], plugin.csi_name.as_str());
    let sets = of_kind("DaemonSet");
    let names = |set: &Value| -> Vec<String> {
        let containers = set["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter();
        containers.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(sets[0]), ["dunnage", "registrar", "provisioner", "attacher", "resizer"]);
    assert_eq!(names(sets[1]), ["dunnage", "registrar"]);
    let socket = format!("--csi-address={}", plugin.socket.display());
    for set in sets {
        let pod = &set["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().unwrap() {
            let arguments = container["args"].as_array().unwrap();
            assert!(container["name"] == "dunnage" || arguments.contains(&socket.as_str().into()), "{container}");
            for mount in container["volumeMounts"].as_array().unwrap() {
                named(&pod["volumes"], mount["name"].as_str().unwrap());
            }
        }
        let host = named(&pod["containers"], "dunnage");
        assert_eq!(named(&host["volumeMounts"], "kubelet")["mountPropagation"], "Bidirectional");
        let port = config.telemetry.unwrap().port();
        assert_eq!(host["livenessProbe"]["httpGet"]["port"], port);
    }
    let host = named(&of_kind("DaemonSet")[0]["spec"]["template"]["spec"]["containers"], "dunnage");
    for name in ["configfs", "store", "dev"] {
        named(&host["volumeMounts"], name);
    }
}

#[test]
fn systemd_reads_the_unit_and_stops_it_only_after_the_drain() -> anyhow::Result<()> {
    let seconds = |key: &str| UNIT.lines().find_map(|line| line.strip_prefix(key)?.parse::<u64>().ok());
    assert!(seconds("TimeoutStopSec=").unwrap() > configuration().drain.as_secs());
    let test = "systemd_reads_the_unit_and_stops_it_only_after_the_drain";
    if !can_run(test, &[Need::Program("systemd-analyze")])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let unit = folder.path().join("dunnage.service");
    assert!(UNIT.contains("ExecStart=/usr/local/bin/dunnage "));
    std::fs::write(&unit, UNIT.replace("/usr/local/bin/dunnage", env!("CARGO_BIN_EXE_dunnage")))?;
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).env("LC_ALL", "C").output()?;
    let said = String::from_utf8_lossy(&verified.stderr);
    // It looks at the units beside it too, which are the machine's.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("dunnage")).collect();
    assert!(ours.is_empty(), "{said}");
    assert!(verified.status.success(), "{said}");
    Ok(())
}
