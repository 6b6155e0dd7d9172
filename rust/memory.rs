//! Whether memory would suffice, asked before it is taken.
//!
//! Linux promises more memory than there is and ends the process that uses it; a large request is therefore
//! compared with what is available first.

/// Requests below this are not worth a look.
const LARGE: usize = 64 << 20;

/// Whether `bytes` more can be used. Where the system does not say, the allocator decides.
pub fn suffices(bytes: usize) -> bool {
    bytes < LARGE || available().is_none_or(|available| bytes <= available)
}

/// Bytes that can be used without swapping.
fn available() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::suffices;

    #[test]
    fn small_requests_pass_and_absurd_ones_do_not() {
        assert!(suffices(1 << 20));
        if cfg!(target_os = "linux") {
            assert!(!suffices(1 << 50));
        }
    }
}
