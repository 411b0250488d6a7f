//! Ports that nobody else takes.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems give to whoever asks for any, so that no connection gets one.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of this machine, for as long as this is kept: also while nobody listens on it.
///
/// A server that another test starts on the port of one that was killed would be taken for it, by
/// sentinels and by the servers of a cluster, and be given what is not its own.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Locked: tests run in processes of their own.
    _lease: File,
}

impl Port {
    /// A port that is free now.
    pub(crate) fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("unskew-test-redis-ports");
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        // Different processes begin at different places.
        let start = std::process::id() as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let at = start.wrapping_mul(97).wrapping_add(step);
            let number = FIRST + at % COUNT;
            let lease = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()));
            let Ok(lease) = lease else {
                continue;
            };
            if lease.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Self {
                    number,
                    _lease: lease,
                };
            }
        }
        panic!("no port is free");
    }

    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}
