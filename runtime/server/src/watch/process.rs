//! What the operating system says of this process.

use std::time::Duration;

/// What the process takes, as far as the system says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Bytes of memory that are resident.
    pub(super) resident: Option<u64>,
    /// Bytes of address space.
    pub(super) virtual_memory: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open files and sockets.
    pub(super) open_files: Option<u64>,
    /// The time of all threads on a CPU.
    pub(super) cpu: Duration,
}

impl Process {
    /// What the process takes now.
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        // The system writes kB and means 1,024 bytes.
        let bytes = |name| field(name).map(|kibibytes| kibibytes * 1024);
        let files = std::fs::read_dir("/proc/self/fd").ok();
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            resident: bytes("VmRSS:"),
            virtual_memory: bytes("VmSize:"),
            threads: field("Threads:"),
            // One of them is the folder that is being read.
            open_files: files.map(|files| (files.count() as u64).saturating_sub(1)),
            cpu: Duration::new(
                u64::try_from(time.tv_sec).unwrap_or_default(),
                u32::try_from(time.tv_nsec).unwrap_or_default(),
            ),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_the_process_takes() {
        let process = Process::now();
        assert!(process.resident > Some(1 << 20), "{process:?}");
        assert!(process.virtual_memory >= process.resident, "{process:?}");
        assert!(process.threads >= Some(1), "{process:?}");
        assert!(process.open_files >= Some(3), "{process:?}");
        assert!(process.cpu > Duration::ZERO, "{process:?}");
    }
}
