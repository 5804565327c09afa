//! The folder of the sockets, which in Kubernetes lies in the kubelet's.

use std::path::Path;

use dunnage_driver_api::Finding;

use crate::config::{Config, Mode};
use crate::mount;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let sockets = config.sockets.as_path();
    let mut findings = vec![existence(sockets)];
    if config.mode == Mode::Controller {
        return findings;
    }
    if mount::is_of_host() {
        findings.push(Finding::ok("what is mounted here is seen by the host: this is its mount namespace"));
    } else {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        findings.push(propagation(&table, kubelet_root(sockets)));
    }
    findings
}

/// The folder in which targets and staging paths lie too, where it is the kubelet's.
fn kubelet_root(sockets: &Path) -> &Path {
    sockets.parent().unwrap_or(sockets)
}

fn existence(sockets: &Path) -> Finding {
    let root = kubelet_root(sockets);
    if sockets.is_dir() {
        Finding::ok(format_args!("{} is there", sockets.display()))
    } else if sockets.exists() {
        Finding::error(format_args!("{} is no folder", sockets.display()), "set `sockets` to a folder")
    } else if root.is_dir() {
        Finding::ok(format_args!("{} will be made in {}", sockets.display(), root.display()))
    } else {
        Finding::warning(
            format_args!("{} is not there: no kubelet runs here, or its root is another folder", root.display()),
            "set `sockets` to the folder `plugins` in the kubelet's --root-dir (k0s, MicroK8s and others have their own)",
        )
    }
}

fn propagation(table: &str, folder: &Path) -> Finding {
    let shown = folder.display();
    match mount_of(table, folder) {
        Some((_, fields)) if fields.split(' ').any(|field| field.starts_with("shared:")) => {
            Finding::ok(format_args!("the mount that {shown} lies on is shared"))
        }
        found => Finding::error(
            format_args!(
                "mounts below {shown} would be seen in this container alone: the mount {} is not shared",
                found.map_or("/", |(point, _)| point)
            ),
            format_args!("mount {shown} into the container with `mountPropagation: Bidirectional`"),
        ),
    }
}

/// The mount that a path lies on: where it is mounted and its optional fields (proc_pid_mountinfo(5)).
fn mount_of<'a>(table: &'a str, path: &Path) -> Option<(&'a str, &'a str)> {
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split_once(" - ")?.0.splitn(7, ' ');
        let point = fields.nth(4)?;
        Some((point, fields.nth(1).unwrap_or_default()))
    });
    // Of two mounts on one place the later one is on top.
    mounts.filter(|(point, _)| path.starts_with(unescaped(point))).max_by_key(|(point, _)| point.len())
}

/// A mount point without the octal escapes of white space.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::Severity;

    use super::*;

    const TABLE: &str = "\
1 0 0:1 / / rw,relatime master:1 - overlay overlay rw
2 1 0:2 / /var/lib/kubelet rw,relatime shared:7 master:3 - ext4 /dev/vda rw
3 1 0:3 / /var/lib/kube rw,relatime - ext4 /dev/vda rw
4 1 0:3 / /a\\040b rw,relatime - ext4 /dev/vda rw
5 1 0:3 / /a\\040b rw,relatime shared:9 - ext4 /dev/vda rw
";

    #[test]
    fn a_folder_is_shared_where_the_mount_that_it_lies_on_is() {
        for (folder, severity) in [
            ("/var/lib/kubelet", Severity::Ok),
            ("/var/lib/kubelet/plugins", Severity::Ok),
            ("/var/lib/kube", Severity::Error),
            ("/srv", Severity::Error),
            ("/a b/c", Severity::Ok),
        ] {
            assert_eq!(propagation(TABLE, Path::new(folder)).severity, severity, "{folder}");
        }
    }

    #[test]
    fn a_kubelet_root_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existence(&folder.path().join("plugins")).severity, Severity::Ok);
        let finding = existence(&folder.path().join("kubelet/plugins"));
        assert!(finding.severity == Severity::Warning && finding.remedy.contains("--root-dir"), "{finding:?}");
    }
}
