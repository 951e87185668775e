//! How a process that has a store open ends.

/// Ends the process at once, with this exit code. For a process whose other threads may still work with the store, such
/// as that of a backup which nobody waits for. `std::process::exit`, and a return from `main`, run the exit handlers of
/// the C libraries first, and OpenSSL's takes away what SQLCipher is using in another thread: a crash in place of the
/// exit code. Nothing is lost: the store is made for being killed at any moment.
pub fn end(code: u8) -> ! {
    signal_hook::low_level::exit(i32::from(code))
}
