//! Random bytes from the kernel's CSPRNG, fetched in blocks because transaction ids are wanted per packet.

const BLOCK: usize = 4096;

/// A worker's supply of random bytes. Every byte is handed out once.
pub(super) struct Random {
    block: Box<[u8; BLOCK]>,
    used: usize,
}

impl Random {
    pub(super) fn new() -> Self {
        Self { block: Box::new([0; BLOCK]), used: BLOCK }
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        if out.len() > BLOCK {
            return fill_from_system(out);
        }
        if self.used + out.len() > BLOCK {
            fill_from_system(self.block.as_mut_slice());
            self.used = 0;
        }
        if let Some(fresh) = self.block.get_mut(self.used..self.used + out.len()) {
            out.copy_from_slice(fresh);
            fresh.fill(0);
        }
        self.used += out.len();
    }
}

/// Fills `out` from the kernel. A system without randomness cannot make nonces or ports nobody guesses: the process ends.
pub(crate) fn fill_from_system(out: &mut [u8]) {
    if let Err(error) = getrandom::fill(out) {
        tracing::error!(%error, "the system gives no random bytes");
        std::process::abort();
    }
}
