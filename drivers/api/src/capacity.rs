//! Sizes.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

mod text;

/// A number of bytes, at most what CSI can say (2^63 - 1). Written by programs as a number, by people also as a whole
/// number with a unit: `512MiB`, `10Gi`, `1 TB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
#[serde(into = "u64")]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The greatest size that CSI can say.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// A size, cut to what CSI can say.
    pub const fn new(bytes: u64) -> Self {
        if bytes > Self::MAX.0 { Self::MAX } else { Self(bytes) }
    }

    /// A sum that may be greater, cut to what CSI can say.
    pub const fn cut(sum: u128) -> Self {
        if sum > Self::MAX.0 as u128 { Self::MAX } else { Self(sum as u64) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as CSI carries it.
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// The sum, cut to what CSI can say.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::new(self.0.saturating_add(other.0))
    }

    /// The difference, nothing where `other` is greater.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The least multiple of `unit` that is not smaller; itself for a unit of 0.
    #[must_use]
    pub const fn round_up(self, unit: u64) -> Self {
        match self.0.checked_next_multiple_of(unit) {
            Some(bytes) => Self::new(bytes),
            None => self,
        }
    }
}

impl TryFrom<u64> for Bytes {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self> {
        if bytes <= Self::MAX.0 { Ok(Self(bytes)) } else { Err(Error::invalid(format!("{bytes} bytes are too many"))) }
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let (mut value, mut unit) = (self.0, 0);
        while unit < 6 && value >= 1024 && value % 1024 == 0 {
            value /= 1024;
            unit += 1;
        }
        if unit < 6 && value >= 10240 {
            let scaled = self.0 as f64 / 1024_f64.powi(((self.0.ilog2() / 10) as i32).min(6));
            return write!(f, "{scaled:.1} {}", UNITS[(self.0.ilog2() / 10) as usize]);
        }
        write!(f, "{value} {}", UNITS[unit])
    }
}

/// How large a volume must be and may be (CSI CapacityRange), in bytes. `limit` is never below `required`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapacityRange {
    required: Bytes,
    limit: Option<Bytes>,
}

impl CapacityRange {
    /// A range from the numbers of a request, where 0 means "not said".
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] for a limit below what is required; [`ErrorKind::InvalidArgument`] for a negative
    /// number.
    pub fn new(required: i64, limit: i64) -> Result<Self> {
        let size = |name: &str, value: i64| {
            u64::try_from(value).map(Bytes).map_err(|_| Error::invalid(format!("{name} is negative: {value}")))
        };
        let (required, limit) = (size("required_bytes", required)?, size("limit_bytes", limit)?);
        if limit != Bytes::ZERO && limit < required {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("limit_bytes {} is below required_bytes {}", limit.0, required.0),
            ));
        }
        Ok(Self { required, limit: (limit != Bytes::ZERO).then_some(limit) })
    }

    /// The least size; 0 where the request did not say one.
    pub fn required(&self) -> Bytes {
        self.required
    }

    /// The greatest size, where the request said one.
    pub fn limit(&self) -> Option<Bytes> {
        self.limit
    }

    /// Whether a volume of `size` is what was asked for.
    pub fn holds(&self, size: Bytes) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }

    /// The same range, with nothing below `size` in it.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] where the limit is below that.
    pub fn at_least(self, size: Bytes) -> Result<Self> {
        if let Some(limit) = self.limit.filter(|limit| *limit < size) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("limit_bytes {} is below the {} bytes of what the volume is made from", limit.0, size.0),
            ));
        }
        Ok(Self { required: self.required.max(size), limit: self.limit })
    }

    /// The size to make: what is required, or `default` (cut to the limit) where nothing is, rounded up to `unit`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] where no multiple of `unit` lies in the range.
    pub fn choose(&self, default: Bytes, unit: u64) -> Result<Bytes> {
        let wanted = if self.required == Bytes::ZERO {
            self.limit.map_or(default, |limit| default.min(limit))
        } else {
            self.required
        };
        let size = wanted.round_up(unit);
        if self.holds(size) {
            return Ok(size);
        }
        let below = Bytes(self.limit.map_or(size.0, |limit| limit.0 / unit.max(1) * unit.max(1)));
        if below > Bytes::ZERO && self.holds(below) {
            return Ok(below);
        }
        Err(Error::new(ErrorKind::OutOfRange, format!("no size in {self} is a multiple of {}", Bytes::new(unit))))
    }
}

impl fmt::Display for CapacityRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => write!(f, "{} to {} bytes", self.required.0, limit.0),
            None => write!(f, "at least {} bytes", self.required.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (bytes, text) in [(0, "0 B"), (1 << 30, "1 GiB"), (1536 << 20, "1536 MiB"), (123_456_789, "117.7 MiB")] {
            assert_eq!(Bytes::new(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_limit_below_the_required_size_is_out_of_range() {
        assert_eq!(CapacityRange::new(2, 1).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(CapacityRange::new(-1, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    proptest! {
        #[test]
        fn the_chosen_size_lies_in_the_range(required in 0..1_i64 << 50, extra in 0..1_i64 << 40, unit in 1..1_u64 << 22) {
            let range = CapacityRange::new(required, required + extra).unwrap();
            if let Ok(size) = range.choose(Bytes::new(1 << 30), unit) {
                prop_assert!(range.holds(size));
                prop_assert_eq!(size.get() % unit, 0);
            }
        }
    }
}
