//! Random bytes from the kernel's CSPRNG.

/// Fills `out` from the kernel. A system without randomness cannot make nonces or ports nobody guesses: the process ends.
pub(crate) fn fill_from_system(out: &mut [u8]) {
    if let Err(error) = getrandom::fill(out) {
        tracing::error!(%error, "the system gives no random bytes");
        std::process::abort();
    }
}
