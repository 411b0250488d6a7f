//! The scripts that run inside Redis.

use redis::Cmd;

/// A script, which is called by its hash.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    /// What loads it into a server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.code);
        load
    }

    /// A call with room for `bytes` in `keys` keys and as many arguments; both are still to be
    /// added to it, the keys first.
    pub(super) fn call(&self, keys: usize, arguments: usize, bytes: usize) -> Cmd {
        let mut call = Cmd::with_capacity(3 + keys + arguments, 64 + bytes);
        call.arg("EVALSHA").arg(&self.hash).arg(keys);
        call
    }
}
