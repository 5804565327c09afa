//! What the group or the pool can hold, and what of it is promised.

use dunnage_driver_api::{Bytes, Capacity, Commands, Context, Error, ErrorKind, Parameters, Result};

use crate::config::{Lvm, Watermarks};
use crate::layout::{Layout, ThickClass};
use crate::report::{Logical, Report};
use crate::reports::Reservation;
use crate::store::Store;

impl Store {
    /// Speaks for `bytes` more, for a volume of `size` in all, with this layout.
    ///
    /// # Errors
    /// `OutOfRange` for what the store could not hold if it were empty, `ResourceExhausted` for what does not fit now.
    pub(crate) fn reserve(
        &self,
        commands: &dyn Commands,
        layout: Layout,
        bytes: Bytes,
        size: Bytes,
    ) -> Result<Reservation<'_>> {
        match self.config.pool() {
            Some(pool) => self.reports.reserve(commands, bytes.get(), |report, reserved| {
                fits_pool(&self.config, report, pool, reserved, bytes, size)
            }),
            None => {
                let takes = layout.takes(bytes.get(), self.extent);
                let whole = layout.takes(size.get(), self.extent);
                self.reports.reserve(commands, takes, |report, reserved| fits_group(report, reserved, takes, whole))
            }
        }
    }
}

fn too_large(size: Bytes, all: u64) -> Error {
    let message = format!("{size} are larger than the store allows, which is {} in all", Bytes::new(all));
    Error::new(ErrorKind::OutOfRange, message)
}

fn fits_group(report: &Report, reserved: u64, takes: u64, whole: u64) -> Result<()> {
    if whole > report.size {
        return Err(too_large(Bytes::new(whole), report.size));
    }
    let free = report.free.saturating_sub(reserved);
    if takes <= free {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResourceExhausted,
        format!(
            "no room for {} more: the volume group has {} free of {}; delete volumes, or add a disk",
            Bytes::new(takes),
            Bytes::new(free),
            Bytes::new(report.size)
        ),
    ))
}

fn fits_pool(config: &Lvm, report: &Report, name: &str, reserved: u64, bytes: Bytes, size: Bytes) -> Result<()> {
    let pool = report.pool(name)?;
    let limit = config.overcommit().times(pool.size);
    if size.get() > limit {
        return Err(too_large(size, limit));
    }
    if let Some(full) = full(pool, config.watermarks()) {
        return Err(Error::new(ErrorKind::ResourceExhausted, format!("nothing is made or grown: {full}")));
    }
    let promised = report.promised(name).saturating_add(reserved);
    if promised.saturating_add(bytes.get()) <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResourceExhausted,
        format!(
            "no room for {bytes} more: {} of {} are promised to volumes and snapshots; delete some, grow the pool, or raise \
             overcommit",
            Bytes::new(promised),
            Bytes::new(limit)
        ),
    ))
}

/// That the pool has come to a watermark, or is not in use so that nothing is known of it.
pub(crate) fn full(pool: &Logical, watermarks: Watermarks) -> Option<String> {
    let above = |what: &str, percent: Option<f64>, mark: u8| match percent {
        None => Some("the thin pool is not active: see the host's log".into()),
        Some(percent) if percent < f64::from(mark) => None,
        Some(percent) => Some(format!(
            "the {what} of the thin pool is {percent:.1} % full, and the watermark is {mark} %: grow it with lvextend, or \
             delete volumes and snapshots"
        )),
    };
    above("data", pool.data_percent, watermarks.data)
        .or_else(|| above("metadata", pool.metadata_percent, watermarks.metadata))
}

impl dunnage_driver_api::Room for Store {
    fn capacity(&self, cx: &Context, parameters: &Parameters) -> Result<Capacity> {
        let report = self.reports.get(&*cx.commands)?;
        let reserved = self.reports.reserved();
        let Some(name) = self.config.pool() else {
            let layout = parameters.parse::<ThickClass>()?.layout()?;
            let unit = layout.unit(self.extent);
            let free = report.free.saturating_sub(reserved) / u64::from(layout.copies);
            let largest = layout.largest(&report).min(free / unit * unit);
            let available = if layout == Layout::LINEAR { free } else { largest };
            return Ok(capacity(available, largest, unit));
        };
        let pool = report.pool(name)?;
        let promised = report.promised(name).saturating_add(reserved);
        let room = match full(pool, self.config.watermarks()) {
            Some(_) => 0,
            None => self.config.overcommit().times(pool.size).saturating_sub(promised) / self.extent * self.extent,
        };
        Ok(capacity(room, room, self.extent))
    }
}

fn capacity(available: u64, largest: u64, least: u64) -> Capacity {
    Capacity::new(Bytes::new(available)).at_most(Bytes::new(largest)).at_least(Bytes::new(least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{row, text, with_room};

    fn pool(keys: &str, percents: [&str; 2], promised: u64) -> (Lvm, Report) {
        let keys = format!(r#"{{"vg": "vg", "devices": ["/dev/sdb"], "type": "thin", "pool": "pool"{keys}}}"#);
        let rows = [
            row("pool", "", 100 << 20, "thin,pool", "", percents),
            row("a", "", promised << 20, "thin,sparse", "pool", ["", ""]),
        ];
        (serde_json::from_str(&keys).unwrap(), Report::parse(&text("", 0, &rows)).unwrap())
    }

    fn fits(pool: &(Lvm, Report), mebibytes: u64) -> Result<(), (ErrorKind, String)> {
        let bytes = Bytes::new(mebibytes << 20);
        let fits = fits_pool(&pool.0, &pool.1, "pool", 10 << 20, bytes, bytes);
        fits.map_err(|error| (error.kind(), error.to_string()))
    }

    #[test]
    fn no_more_is_promised_than_the_pool_and_overcommit_allow() {
        let even = pool("", ["10.00", "10.00"], 50);
        fits(&even, 40).unwrap();
        assert_eq!(fits(&even, 41).unwrap_err().0, ErrorKind::ResourceExhausted);
        assert_eq!(fits(&even, 101).unwrap_err().0, ErrorKind::OutOfRange);
        fits(&pool(r#", "overcommit": 2"#, ["10.00", "10.00"], 50), 140).unwrap();
    }

    #[test]
    fn a_pool_at_a_watermark_takes_nothing_and_says_which() {
        for (keys, percents, said) in [
            ("", ["95.00", "10.00"], "data of the thin pool is 95.0 % full, and the watermark is 95 %"),
            ("", ["10.00", "80.01"], "metadata of the thin pool is 80.0 % full"),
            (r#", "watermarks": {"metadata": 5}"#, ["1.00", "10.84"], "the watermark is 5 %"),
            ("", ["", ""], "not active"),
        ] {
            let (kind, message) = fits(&pool(keys, percents, 0), 1).unwrap_err();
            assert!(kind == ErrorKind::ResourceExhausted && message.contains(said), "{message}");
        }
        fits(&pool("", ["94.99", "79.99"], 0), 1).unwrap();
    }

    #[test]
    fn a_group_gives_no_more_than_it_has() {
        let report = with_room(100, 50, 1, Vec::new());
        fits_group(&report, 10, 40, 40).unwrap();
        assert_eq!(fits_group(&report, 10, 41, 41).unwrap_err().kind(), ErrorKind::ResourceExhausted);
        assert_eq!(fits_group(&report, 0, 10, 101).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}
