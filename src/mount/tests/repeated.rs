//! Programs and records that go wrong, at each step once in each way: the call is repeated.

use std::fs;
use std::time::Duration;

use dunnage_driver_api::{AccessMode, Context, FsType, System};
use dunnage_testkit::{for_each_command, for_each_operation};

use super::rig::{MIB, Rig, engine, is_root, mount, run, writer};
use crate::mount::Engine;

#[test]
fn a_volume_is_formatted_once_and_repaired_whatever_goes_wrong_with_a_program() {
    if !is_root() {
        return;
    }
    for (fs_type, least) in [(FsType::Ext4, 12), (FsType::Xfs, 6), (FsType::Btrfs, 6)] {
        let hits = for_each_command(System, |faults, commands| {
            let rig = Rig::image(512 * MIB);
            let cx = Context::new(Duration::from_secs(60), commands.clone());
            let request = rig.stage_request(mount(AccessMode::SingleNodeWriter, Some(fs_type), &[]));
            faults.repeated(|| rig.stage_as(&cx, &request));
            assert_eq!(rig.mounts("staged").len(), 1);
            fs::write(rig.path("staged/file"), "data").unwrap();
            rig.unstage().unwrap();
            if fs_type == FsType::Ext4 {
                // That it noted an error of its own.
                run("debugfs", &["-w", "-R", "set_super_value state 2", rig.node.image.to_str().unwrap()]);
            }
            faults.repeated(|| rig.stage_as(&cx, &request));
            assert_eq!(fs::read_to_string(rig.path("staged/file")).unwrap(), "data", "{:?}", commands.ran());
            rig.unstage().unwrap();
            assert_eq!(rig.node.attached(), None);
            assert!(!rig.path("staged").exists());
            assert_eq!(fs::read_dir(rig.path("state/node")).unwrap().count(), 1, "a formatting is on record");
        });
        assert!(hits >= least, "{fs_type}: {hits}");
    }
}

#[test]
fn a_life_on_a_node_can_be_gone_on_with_wherever_its_records_fail() {
    if !is_root() {
        return;
    }
    let hits = for_each_operation(|faults, state| {
        let mut rig = Rig::image(16 * MIB);
        rig.engine = engine(state);
        faults.repeated(|| rig.stage(writer()));
        fs::write(rig.path("staged/file"), "data").unwrap();
        faults.repeated(|| rig.publish("a", writer(), false));
        assert_eq!(fs::read_to_string(rig.path("a/file")).unwrap(), "data");
        assert_eq!((rig.mounts("staged").len(), rig.mounts("a").len()), (1, 1));
        faults.repeated(|| rig.unpublish("a"));
        assert!(!rig.path("a").exists());
        faults.repeated(|| rig.unstage());
        assert!(!rig.path("staged").exists());
        assert_eq!(rig.node.attached(), None);
        rig.engine = engine(state);
        assert!(Engine::uses_in(state).unwrap().is_empty());
    });
    assert!(hits > 100, "{hits}");
}
