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
