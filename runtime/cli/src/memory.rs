//! How much memory may be used.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::error::Usage;

/// A limit as it is typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MemoryLimit {
    /// So many bytes.
    Bytes(usize),
    /// So many percent of the machine's memory, or of what its control group may use.
    Percent(f64),
}

/// Units as they are typed, without regard to case, and their bytes.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// The least with which anything can be done.
const LEAST: usize = 1 << 20;

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "`{text}` is no size of memory; write it like 2GiB, 512MB or 60%, at least 1MiB"
            )
        };
        let number = |text: &str| {
            let number = text.trim_end().parse::<f64>().ok();
            number.filter(|number| number.is_finite() && *number > 0.0)
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent = number(percent).filter(|percent| *percent <= 100.0);
            return percent.map(Self::Percent).ok_or_else(invalid);
        }
        let lower = text.to_ascii_lowercase();
        let (value, unit) = UNITS
            .iter()
            .find_map(|(name, bytes)| {
                let value = lower.strip_suffix(&name.to_ascii_lowercase())?;
                Some((value, *bytes))
            })
            .unwrap_or((&lower, 1));
        let bytes = number(value).ok_or_else(invalid)? * unit as f64;
        match bytes as usize {
            bytes if bytes >= LEAST => Ok(Self::Bytes(bytes)),
            _ => Err(invalid()),
        }
    }
}

impl MemoryLimit {
    /// What a command takes unless it is told.
    pub(crate) const DEFAULT: Self = Self::Percent(60.0);

    /// The bytes; `None`: no limit, since it is not known how much memory there is.
    ///
    /// # Errors
    /// Percents other than the default of a machine whose memory is not known.
    pub(crate) fn bytes(self) -> Result<Option<usize>, Usage> {
        match (self, available()) {
            (Self::Bytes(bytes), _) => Ok(Some(bytes)),
            (Self::Percent(percent), Some(all)) => {
                Ok(Some(((all as f64 * percent / 100.0) as usize).max(LEAST)))
            }
            (Self::DEFAULT, None) => Ok(None),
            (Self::Percent(_), None) => Err(Usage(
                "how much memory this machine has is not known; write --memory-limit like 2GiB"
                    .to_owned(),
            )),
        }
    }
}

/// The memory of the machine, or of the control group in which the process is, if that may use less.
fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(total);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_files(&groups).into_iter().filter_map(|file| {
        // Version 2 writes `max`, and version 1 a number beyond all memory, where there is none.
        fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    limits.chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files with the limits of the groups that `/proc/self/cgroup` names, and of those above them,
/// of which each binds. Within a container the group's path may be that outside of it, so the root
/// is always looked at.
fn group_files(groups: &str) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            files.push(Path::new(root).join(group).join(file));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_percents() {
        for (text, limit) in [
            ("2GiB", MemoryLimit::Bytes(2 << 30)),
            ("2 gib", MemoryLimit::Bytes(2 << 30)),
            ("1.5GiB", MemoryLimit::Bytes(3 << 29)),
            ("512MB", MemoryLimit::Bytes(512_000_000)),
            ("1048576", MemoryLimit::Bytes(1 << 20)),
            ("60%", MemoryLimit::DEFAULT),
            ("12.5%", MemoryLimit::Percent(12.5)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for text in [
            "", "GiB", "-1GiB", "0%", "101%", "2GX", "NaN%", "infGiB", "1KiB", "10",
        ] {
            let error = text.parse::<MemoryLimit>().unwrap_err();
            assert!(error.contains("2GiB, 512MB or 60%"), "{text}: {error}");
        }
        assert_eq!(
            MemoryLimit::Bytes(1 << 30).bytes().ok(),
            Some(Some(1 << 30))
        );
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert_eq!(
            total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 << 10)
        );
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn each_control_group_above_the_process_may_have_a_limit() {
        let files = group_files("0::/a/b\n3:cpu,memory:/c\n4:pids:/d\n");
        let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }
}
