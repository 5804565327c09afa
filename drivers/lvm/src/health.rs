//! What LVM knows to be wrong with a volume.

use dunnage_driver_api::{Context, Health, HealthFinding, HealthStatus, Result, Volume};

use crate::report::Logical;
use crate::room;
use crate::store::Store;

impl Health for Store {
    fn health(&self, cx: &Context, volume: &Volume) -> Result<Vec<HealthFinding>> {
        let report = self.reports.get(&*cx.commands)?;
        let Some((logical, ..)) = self.volume_in(&report, &volume.key)? else { return Ok(Vec::new()) };
        let mut findings: Vec<_> = of_volume(logical).into_iter().collect();
        if let Some(name) = self.config.pool() {
            let pool = report.pool(name)?;
            findings.extend(of_pool(pool));
            if pool.data_percent.is_some() {
                let nearly = room::full(pool, self.config.watermarks());
                findings.extend(nearly.map(|full| finding(HealthStatus::Degraded, "PoolNearlyFull", full)));
            }
        }
        Ok(findings)
    }
}

fn finding(status: HealthStatus, reason: &'static str, message: impl Into<String>) -> HealthFinding {
    HealthFinding::new(status, reason, message)
}

/// Of a thin volume LVM says what is wrong with its pool.
fn of_volume(logical: &Logical) -> Option<HealthFinding> {
    let is_raid = logical.layout.starts_with("raid");
    match logical.health.as_str() {
        "" => None,
        "partial" if is_raid => Some(finding(
            HealthStatus::Degraded,
            "RaidDegraded",
            "a disk of the RAID is missing: bring it back, or replace it and run `lvconvert --repair`",
        )),
        "partial" => Some(finding(
            HealthStatus::Inaccessible,
            "DiskMissing",
            "a disk that the volume has data on is missing: bring it back, or restore the volume from a backup",
        )),
        "refresh needed" => Some(finding(
            HealthStatus::Degraded,
            "RaidDegraded",
            "a disk of the RAID was lost and is back: run `lvchange --refresh` on the logical volume",
        )),
        "mismatches exist" => Some(finding(
            HealthStatus::Degraded,
            "RaidMismatches",
            "the copies of the RAID differ: run `lvchange --syncaction repair` on the logical volume",
        )),
        other => Some(finding(HealthStatus::Degraded, "LogicalVolume", format!("LVM says of the volume: {other}"))),
    }
}

fn of_pool(pool: &Logical) -> Option<HealthFinding> {
    let (status, reason, message) = match pool.health.as_str() {
        "" | "partial" => return None,
        "out_of_data" => (HealthStatus::Degraded, "PoolOutOfData", "writes to new places of the volume fail: grow it"),
        "metadata_read_only" => (
            HealthStatus::Inaccessible,
            "PoolMetadataReadOnly",
            "its metadata is full or damaged, and it takes no writes: run `lvconvert --repair` with the pool inactive",
        ),
        _ => (
            HealthStatus::Inaccessible,
            "PoolFailed",
            "it has failed: see the kernel log, and run `lvconvert --repair` with the pool inactive",
        ),
    };
    Some(finding(status, reason, format!("the thin pool is {}: {message}", pool.health)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::tests::{row, text};

    fn logical(layout: &str, health: &str) -> Logical {
        let row = row("a", "", 4, layout, "", ["", ""])
            .replace("\"lv_health_status\":\"\"", &format!("\"lv_health_status\":\"{health}\""));
        Report::parse(&text("", 0, &[row])).unwrap().logical.remove("a").unwrap()
    }

    #[test]
    fn what_lvm_says_has_a_word_and_a_status() {
        for (layout, health, status, reason) in [
            ("raid,raid1", "partial", HealthStatus::Degraded, "RaidDegraded"),
            ("linear", "partial", HealthStatus::Inaccessible, "DiskMissing"),
            ("raid,raid1", "refresh needed", HealthStatus::Degraded, "RaidDegraded"),
            ("raid,raid10", "mismatches exist", HealthStatus::Degraded, "RaidMismatches"),
        ] {
            let found = of_volume(&logical(layout, health)).unwrap();
            assert_eq!((found.status, found.reason), (status, reason), "{layout} {health}");
        }
        for (health, status, reason) in [
            ("out_of_data", HealthStatus::Degraded, "PoolOutOfData"),
            ("metadata_read_only", HealthStatus::Inaccessible, "PoolMetadataReadOnly"),
            ("failed", HealthStatus::Inaccessible, "PoolFailed"),
        ] {
            let found = of_pool(&logical("thin,pool", health)).unwrap();
            assert_eq!((found.status, found.reason), (status, reason), "{health}");
        }
        assert_eq!((of_volume(&logical("linear", "")), of_pool(&logical("thin,pool", ""))), (None, None));
    }
}
