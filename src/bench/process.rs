//! What a process uses, as procfs tells.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The kernel gives CPU times to programs in hundredths of a second on every machine that containers run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// How often the resident size is looked at: often enough to see a list being built.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What a process uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Usage {
    /// Resident bytes.
    pub(crate) rss: u64,
    /// Seconds of CPU, its own and those of its children that ended.
    pub(crate) cpu: f64,
}

impl Usage {
    /// What the process uses, `None` where procfs does not say.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let rss = parse_rss(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
        let cpu = parse_cpu(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { rss, cpu })
    }
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The name in parentheses may hold anything, so what counts begins after the last one.
fn parse_cpu(stat: &str) -> Option<f64> {
    const UTIME: usize = 11;
    let (_, rest) = stat.rsplit_once(')')?;
    let times: Vec<u64> = rest.split_whitespace().skip(UTIME).take(4).map_while(|ticks| ticks.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
}

/// Looks at a process until it is asked for the greatest resident size it saw.
pub(crate) struct Peak {
    stop: Sender<()>,
    looker: JoinHandle<u64>,
}

impl Peak {
    pub(crate) fn watch(pid: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let looker = thread::spawn(move || {
            let mut peak = 0;
            loop {
                peak = Usage::of(pid).map_or(peak, |usage| peak.max(usage.rss));
                if stopped.recv_timeout(BETWEEN_LOOKS) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        Self { stop, looker }
    }

    /// The peak in bytes, 0 where nothing could be seen.
    pub(crate) fn end(self) -> u64 {
        drop(self.stop);
        self.looker.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_resident_size() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss > 100_000, "{usage:?}");
        assert!(Peak::watch(std::process::id()).end() > 100_000);
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_times() {
        let stat = "42 (a) b) (c) S 1 1 1 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 1 0 100 1 2";
        assert_eq!(parse_cpu(stat), Some(2.5));
        assert_eq!(parse_cpu("42 (a) S 1"), None);
    }
}
