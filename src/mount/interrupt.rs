//! Whether a caller that waits was signalled.
//!
//! fuser 0.18 refuses the kernel's own word for it, so a waiting caller is looked at: a fatal signal that is pending
//! and neither blocked nor ignored ends its wait (`fuse-semantics.md` §1.9). Others do not: programs get those all the time.

use std::time::Duration;

use tokio::time::sleep;

/// Shorter waits are not worth a look.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(50);
/// HUP, INT, QUIT, KILL, TERM.
const FATAL: u64 = bit(1) | bit(2) | bit(3) | bit(9) | bit(15);

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Resolves when the thread has a fatal signal to take, or is gone. Thread 0 is one that we cannot see.
pub(super) async fn interrupted(thread: u32) {
    if thread == 0 {
        return std::future::pending().await;
    }
    sleep(FIRST_LOOK).await;
    loop {
        match std::fs::read_to_string(format!("/proc/{thread}/status")) {
            Ok(status) if !has_fatal_signal(&status) => {}
            _ => return,
        }
        sleep(LOOK).await;
    }
}

fn has_fatal_signal(status: &str) -> bool {
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let pending = mask("SigPnd:").unwrap_or(0) | mask("ShdPnd:").unwrap_or(0);
    pending & !mask("SigBlk:").unwrap_or(0) & !mask("SigIgn:").unwrap_or(0) & FATAL != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fatal_signal_that_can_be_taken_counts() {
        let status = |pending: u64, blocked: u64, ignored: u64| {
            format!(
                "Name:\tcat\nSigPnd:\t0\nShdPnd:\t{pending:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            )
        };
        assert!(has_fatal_signal(&status(bit(2), 0, 0)), "Ctrl-C");
        assert!(!has_fatal_signal(&status(bit(2), bit(2), 0)), "blocked");
        assert!(!has_fatal_signal(&status(bit(1), 0, bit(1))), "nohup");
        assert!(!has_fatal_signal(&status(bit(17) | bit(23), 0, 0)), "a child's end and urgent data");
    }
}
