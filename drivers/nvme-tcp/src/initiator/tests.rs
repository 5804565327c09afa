//! What sysfs may say, as folders.

use std::fs;
use std::os::unix::fs::symlink;

use dunnage_driver_api::ErrorKind;

use super::*;
use crate::names::Uuid;

const NQN: &str = "nqn.2026-01.dev.dunnage:one";
const UUID: &str = "12345678-1234-1234-1234-123456789abc";
const OTHER: &str = "00000000-1234-1234-1234-123456789abc";
const HOST: &str = "nqn.2026-01.dev.dunnage:node:n";

struct Kernel(tempfile::TempDir);

impl Kernel {
    fn new() -> Self {
        let kernel = Self(tempfile::tempdir().unwrap());
        for folder in ["sys/class/nvme", "sys/class/block", "dev"] {
            fs::create_dir_all(kernel.path(folder)).unwrap();
        }
        kernel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, folder: &str, pairs: &[(&str, &str)]) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for (name, value) in pairs {
            fs::write(self.path(folder).join(name), format!("{value}\n")).unwrap();
        }
    }

    fn controller(&self, name: &str, nqn: &str, state: &str) {
        let folder = format!("sys/class/nvme/{name}");
        self.write(&folder, &[("subsysnqn", nqn), ("state", state), ("hostnqn", HOST)]);
        self.write(&folder, &[("delete_controller", ""), ("rescan_controller", "")]);
    }

    fn namespace(&self, name: &str, controller: &str, uuid: &str) {
        let folder = format!("sys/class/block/{name}");
        // A file has the number 0:0.
        self.write(&folder, &[("dev", "0:0"), ("size", "8"), ("uuid", uuid), ("nguid", uuid)]);
        symlink(self.path(&format!("sys/class/nvme/{controller}")), self.path(&folder).join("device")).unwrap();
        fs::write(self.path("dev").join(name), "").unwrap();
    }

    fn initiator(&self) -> Initiator {
        Initiator::new(&self.path("sys"), &self.path("dev"))
    }

    fn bring(&self) -> Result<PathBuf> {
        let config = serde_json::from_str(r#"{"address": "127.0.0.1"}"#).unwrap();
        let options = Options::new(&config, &dunnage_driver_api::NodeId::of(&"n".parse().unwrap()));
        let namespace = NamespaceId::Uuid(UUID.parse::<Uuid>().unwrap());
        // Nobody listens there.
        let target = "127.0.0.1:1".parse().unwrap();
        let wanted = Wanted { nqn: NQN.into(), namespace, target };
        let (_, path) = self.initiator().bring(&wanted, &options, Instant::now() + Duration::from_millis(50))?;
        Ok(path)
    }

    fn refused(&self, words: &str) {
        let error = self.bring().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.report().contains(words), "{}", error.report());
    }
}

#[test]
fn a_namespace_is_used_where_it_is_the_one_that_is_wanted_and_its_connection_lives() {
    let kernel = Kernel::new();
    kernel.refused("cannot be reached");
    kernel.controller("nvme1", NQN, "connecting");
    kernel.refused("nvme1 to the target of the volume is connecting");
    kernel.controller("nvme1", NQN, "live");
    kernel.refused("none has appeared");
    kernel.namespace("nvme1n1", "nvme1", UUID);
    assert_eq!(kernel.bring().unwrap(), kernel.path("dev/nvme1n1"));
}

#[test]
fn another_namespace_or_another_subsystem_is_never_taken() {
    let kernel = Kernel::new();
    kernel.controller("nvme1", NQN, "live");
    kernel.controller("nvme2", "nqn.2026-01.dev.dunnage:two", "live");
    // The right identity at another target, and another one at the right target.
    kernel.namespace("nvme2n1", "nvme2", UUID);
    kernel.namespace("nvme1n1", "nvme1", "00000000-1234-1234-1234-123456789abc");
    kernel.refused("nothing of another one is touched");
    // A path to the namespace has no device of its own.
    kernel.namespace("nvme1c1n1", "nvme1", UUID);
    kernel.refused("nvme1n1 (UUID 00000000");
    kernel.namespace("nvme1n2", "nvme1", UUID);
    kernel.namespace("nvme1n3", "nvme1", UUID);
    kernel.refused("one identity");
}

#[test]
fn a_device_whose_number_has_become_another_ones_is_not_used() {
    let kernel = Kernel::new();
    kernel.controller("nvme1", NQN, "live");
    kernel.namespace("nvme1n1", "nvme1", UUID);
    kernel.write("sys/class/block/nvme1n1", &[("dev", "259:7")]);
    kernel.refused("nvme1n1");
}

#[test]
fn a_connection_ends_only_with_its_last_namespace_and_only_where_this_node_made_it() {
    let kernel = Kernel::new();
    let namespace = NamespaceId::Uuid(UUID.parse().unwrap());
    let ended = Connected { nqn: NQN.into(), namespace, host: HOST.into() };
    let end = || kernel.initiator().disconnect(&ended, Instant::now());
    let asked = || fs::read_to_string(kernel.path("sys/class/nvme/nvme1/delete_controller")).unwrap().starts_with('1');
    end().unwrap();
    kernel.controller("nvme1", NQN, "live");
    kernel.namespace("nvme1n1", "nvme1", UUID);
    kernel.namespace("nvme1n2", "nvme1", OTHER);
    end().unwrap();
    assert!(!asked(), "another volume is there");
    fs::remove_dir_all(kernel.path("sys/class/block/nvme1n1")).unwrap();
    end().unwrap();
    assert!(!asked(), "what is there alone is another volume");
    fs::remove_dir_all(kernel.path("sys/class/block/nvme1n2")).unwrap();
    kernel.namespace("nvme1n1", "nvme1", UUID);
    kernel.write("sys/class/nvme/nvme1", &[("hostnqn", "nqn.2014-08.org.nvmexpress:uuid:1")]);
    end().unwrap();
    assert!(!asked(), "somebody else has made it");
    kernel.write("sys/class/nvme/nvme1", &[("hostnqn", HOST)]);
    // Here the kernel does not do it.
    assert!(end().unwrap_err().to_string().contains("not ended"));
    assert!(asked());
}

#[test]
fn a_target_that_is_gone_does_not_tell_a_size() {
    let kernel = Kernel::new();
    let refresh = || kernel.initiator().refresh(NQN, Instant::now());
    assert!(refresh().unwrap_err().to_string().contains("device is gone"));
    kernel.controller("nvme1", NQN, "connecting");
    kernel.namespace("nvme1n1", "nvme1", UUID);
    let refused = refresh().unwrap_err();
    assert!(refused.to_string().contains("cannot be reached") && refused.retry_can_help(), "{refused}");
    kernel.controller("nvme1", NQN, "live");
    refresh().unwrap();
}

#[test]
fn a_connection_is_neither_looked_for_nor_ended_while_another_volume_has_its_turn() {
    let kernel = Kernel::new();
    let namespace = NamespaceId::Uuid(UUID.parse().unwrap());
    let ended = Connected { nqn: "nqn.x:turn".into(), namespace, host: HOST.into() };
    let _turn = Turn::take(&kernel.path("sys"), "nqn.x:turn", Instant::now()).unwrap();
    let refused = kernel.initiator().disconnect(&ended, Instant::now()).unwrap_err();
    assert!(refused.to_string().contains("another volume") && refused.retry_can_help(), "{refused}");
}

#[test]
fn the_form_of_what_undoes_a_connection_is_frozen() {
    for namespace in ["uuid", "nguid"] {
        let text = format!(r#"{{"nqn":"{NQN}","namespace":{{"{namespace}":"{UUID}"}},"host":"{HOST}"}}"#);
        let read: Connected = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
