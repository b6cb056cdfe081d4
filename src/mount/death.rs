//! How a program closes its files: as it wants to, or because a signal has ended it.
//!
//! The kernel closes what a program has open also when the program was killed, and says nothing of it. But it takes the
//! program's memory and sets its exit code before it closes, so that `/proc/PID/stat` tells. It shows the exit code only to
//! who may look into the program, and nothing at all where the program cannot be seen: in a place with other process
//! numbers, or behind `hidepid`.

use std::sync::OnceLock;

/// Fields of `/proc/PID/stat` behind the name: where the program's code begins, and the exit code.
const START_CODE: usize = 23;
const EXIT_CODE: usize = 49;
/// The bits of an exit code that a signal sets.
const SIGNAL: u32 = 0x7f;

/// How a thread closes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It runs, or it ends without a signal.
    InOrder,
    /// A signal has ended it.
    Killed,
    /// Nobody knows.
    Unseen,
}

/// How this thread, 0 where the kernel cannot name it, closes a file at this moment.
pub(super) fn closing(thread: u32) -> Closing {
    if thread == 0 || !numbers_are_ours() {
        return Closing::Unseen;
    }
    // A program closes files in the middle of execve(2) too, and until that is done the kernel lets nobody read its `stat`:
    // it would wait for our answer, and we for it. `status` can be read, and a program that has memory is not at its end.
    match has_memory(thread) {
        Some(true) => return Closing::InOrder,
        Some(false) => {}
        None => return Closing::Unseen,
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{thread}/stat")) else { return Closing::Unseen };
    // It may be asked for only by who may see the exit code; a program that is ending still has its directory.
    told(&stat, || std::fs::read_link(format!("/proc/{thread}/cwd")).is_ok())
}

/// Whether a thread has memory of its own; `None`: it cannot be seen.
fn has_memory(thread: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    Some(status.lines().any(|line| line.starts_with("VmSize:")))
}

fn told(stat: &str, may_see: impl FnOnce() -> bool) -> Closing {
    // The name is in parentheses, and may have some.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Closing::Unseen };
    let field = |at: usize| fields.split(' ').nth(at).and_then(|field| field.trim().parse::<u64>().ok());
    let (Some(start), Some(code)) = (field(START_CODE), field(EXIT_CODE)) else { return Closing::Unseen };
    match (u32::try_from(code).unwrap_or(u32::MAX) & SIGNAL, start) {
        (0, 0) if !may_see() => Closing::Unseen,
        // What has its memory is not at its end.
        (0, _) => Closing::InOrder,
        _ => Closing::Killed,
    }
}

/// Whether the numbers in `/proc` are those that the kernel names us callers by. In a process namespace of its own that
/// has the `/proc` of another they are not.
fn numbers_are_ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
        let us = std::fs::read_link("/proc/self").ok();
        us.and_then(|us| us.to_str()?.parse::<u32>().ok()) == Some(std::process::id())
    })
}

/// Whether one of these threads may be of the same program as the one that closes: it is, or it cannot be seen.
pub(super) fn may_be_of(closing: u32, threads: &[u32]) -> bool {
    if threads.is_empty() || threads.contains(&closing) || threads.contains(&0) {
        return true;
    }
    if closing == 0 {
        return false;
    }
    let program = program_of(closing);
    threads.iter().any(|&thread| program_of(thread).is_none_or(|it| Some(it) == program))
}

fn program_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, start: u64, code: u32) -> String {
        let mut fields: Vec<String> = (0..EXIT_CODE).map(|field| field.to_string()).collect();
        fields[START_CODE] = start.to_string();
        format!("123 ({name}) {} {code}\n", fields.join(" "))
    }

    #[test]
    fn a_signal_shows_in_the_exit_code() {
        assert_eq!(told(&stat("cp", 0, 9), || true), Closing::Killed, "SIGKILL");
        assert_eq!(told(&stat("a ) b", 0, 0x80 | 6), || true), Closing::Killed, "SIGABRT, with a core");
        assert_eq!(told(&stat("cp", 94_000, 0), || true), Closing::InOrder, "it lives");
        assert_eq!(told(&stat("cp", 0, 1 << 8), || true), Closing::InOrder, "it ends with 1");
    }

    #[test]
    fn an_exit_code_that_is_not_shown_says_nothing_and_a_program_that_has_memory_lives() {
        assert_eq!(told(&stat("cp", 0, 0), || false), Closing::Unseen);
        assert_eq!(told(&stat("cp", 1, 0), || false), Closing::InOrder, "another user's, which runs");
        assert_eq!(told("nonsense", || true), Closing::Unseen);
        assert_eq!(closing(0), Closing::Unseen);
        assert_eq!(closing(u32::MAX), Closing::Unseen);
    }

    #[test]
    fn we_live_and_are_one_program() {
        let us = std::process::id();
        assert_eq!((closing(us), has_memory(us)), (Closing::InOrder, Some(true)));
        assert!(may_be_of(us, &[]) && may_be_of(us, &[us]) && may_be_of(us, &[0]) && may_be_of(0, &[]));
        assert!(!may_be_of(us, &[1]), "init is another");
        assert!(!may_be_of(0, &[us]), "what wrote can be seen, and what closes cannot");
    }
}
