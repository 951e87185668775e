//! Memory of a process, as the kernel counts it.

/// The most that a process ever held, in KiB; 0 when it is gone.
pub fn peak_kib(pid: u32) -> u64 {
    field(pid, "VmHWM:")
}

/// What a process holds now, in KiB; 0 when it is gone.
pub fn resident_kib(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

fn field(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The processor time that a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    /// The kernel's unit of these numbers on every Linux that Rust knows.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; utime and stime are the 12th and 13th fields behind it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
    ticks / TICKS_PER_SECOND
}
