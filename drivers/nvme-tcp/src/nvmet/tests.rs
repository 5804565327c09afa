//! What configfs may hold, as folders: here they do nothing by themselves.

use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{ErrorKind, System, VolumeId};

use super::*;

struct Kernel(tempfile::TempDir);

impl Kernel {
    fn new() -> Self {
        let kernel = Self(tempfile::tempdir().unwrap());
        fs::create_dir(kernel.path("module")).unwrap();
        kernel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn has(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
    }

    fn target(&self) -> Nvmet {
        Nvmet::new(&self.path("nvmet"), &self.path("module"), "10.0.0.1:4420".parse().unwrap())
    }
}

fn cx() -> Context {
    Context::new(Duration::from_secs(5), Arc::new(System))
}

fn volume() -> VolumeId {
    "mzxw6ytboimzxw6ytboimzxw6y.v.a4dqobyha4dqobyha4dqobyha4".parse().unwrap()
}

fn id() -> ExportId {
    ExportId { volume: volume(), word: "aaaaaaaaaaaaa".parse().unwrap() }
}

#[test]
fn a_target_that_is_out_of_sight_may_still_serve() {
    let kernel = Kernel::new();
    let target = kernel.target();
    // Nothing can be exported by a kernel that has no target.
    target.withdraw(&cx(), &id()).unwrap();
    assert!(target.exported(&volume().instance).unwrap().is_empty());
    for module in OF_TARGET {
        kernel.has(&format!("module/{module}"));
        for refused in [target.withdraw(&cx(), &id()), target.exported(&volume().instance).map(drop)] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{}", error.report());
            assert!(error.to_string().contains("mount configfs"), "{error}");
        }
        fs::remove_dir(kernel.path("module").join(module)).unwrap();
    }
    kernel.has("module/nvmet");
    kernel.has("nvmet/subsystems");
    target.withdraw(&cx(), &id()).unwrap();
    kernel.has(&format!("nvmet/subsystems/{}", names::subsystem(&id())));
    assert_eq!(target.exported(&volume().instance).unwrap(), [id()]);
    target.withdraw(&cx(), &id()).unwrap();
    assert!(target.exported(&volume().instance).unwrap().is_empty());
    // What cannot be looked at is not missing.
    fs::remove_dir_all(kernel.path("nvmet")).unwrap();
    fs::write(kernel.path("nvmet"), "").unwrap();
    target.withdraw(&cx(), &id()).unwrap_err();
}

#[test]
fn an_export_that_is_in_use_keeps_its_device() {
    let kernel = Kernel::new();
    let (target, nqn) = (kernel.target(), names::subsystem(&id()));
    kernel.has(&format!("nvmet/subsystems/{nqn}/namespaces"));
    let subsystem = target.subsystem(&nqn);
    let settle = |path: &str| target.settle_namespace(&subsystem, &id(), path.as_ref());
    for _ in 0..2 {
        settle("/dev/one").unwrap();
    }
    let refused = settle("/dev/two").unwrap_err();
    assert!(refused.to_string().contains("/dev/one") && refused.to_string().contains("/dev/two"), "{refused}");
    let said = |name: &str| fs::read_to_string(subsystem.join(NAMESPACE).join(name)).unwrap();
    assert_eq!((said("enable"), said("device_path")), ("1".into(), "/dev/one".into()));
    fs::write(subsystem.join(NAMESPACE).join("enable"), "0").unwrap();
    settle("/dev/two").unwrap();
    assert_eq!((said("enable"), said("device_path")), ("1".into(), "/dev/two".into()));
}

#[test]
fn an_export_stands_where_it_is_whole_and_one_hosts_and_whoever_else_had_it_is_let_go() {
    let kernel = Kernel::new();
    let (target, nqn) = (kernel.target(), names::subsystem(&id()));
    for folder in ["hosts/one", "hosts/two", "ports", &format!("subsystems/{nqn}/namespaces")] {
        kernel.has(&format!("nvmet/{folder}"));
    }
    let subsystem = target.subsystem(&nqn);
    let make = || {
        target.settle_host(&subsystem, &nqn, "one").unwrap();
        target.settle_namespace(&subsystem, &id(), "/dev/one".as_ref()).unwrap();
        let is_reached = target.port.has(&nqn).unwrap();
        target.link(&nqn).unwrap();
        is_reached
    };
    assert!(!target.stands(&id()).unwrap());
    assert!(!make());
    assert!(target.stands(&id()).unwrap());
    assert!(make(), "its host was let go");
    fs::write(subsystem.join(NAMESPACE).join("enable"), "0").unwrap();
    assert!(!target.stands(&id()).unwrap());
    make();
    fs::write(subsystem.join("attr_allow_any_host"), "1").unwrap();
    assert!(!target.stands(&id()).unwrap());
    assert!(!make(), "who was let in by it stays connected");
    std::os::unix::fs::symlink(kernel.path("nvmet/hosts/two"), subsystem.join("allowed_hosts/two")).unwrap();
    assert!(!target.stands(&id()).unwrap());
    assert!(!make(), "the other host stays connected");
    assert!(target.stands(&id()).unwrap());
    assert_eq!(list(&subsystem.join("allowed_hosts")).unwrap(), ["one"]);
    Port::unlink_everywhere(&target.root, &nqn).unwrap();
    assert!(!target.stands(&id()).unwrap());
}
