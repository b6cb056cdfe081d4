//! Whether a program is closing its files because a signal ends it.
//!
//! The kernel closes what a program has open also when the program was killed, and says nothing of it. But it sets the exit
//! code before it closes, so that `/proc/PID/stat` tells: a close by a thread that is running has none.

/// Of the exit code in `/proc/PID/stat`: the field's place behind the name, and the bits that a signal sets.
const EXIT_CODE: usize = 49;
const SIGNAL: u32 = 0x7f;

/// Whether this thread is at its end because of a signal. One that we cannot see is taken for alive.
pub(super) fn is_dying(thread: u32) -> bool {
    thread != 0 && std::fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| killed(&stat))
}

/// Whether one of these threads may be of the same program as `dying`: it is, or it is no more.
pub(super) fn may_be_of(dying: u32, threads: &[u32]) -> bool {
    let program = program_of(dying);
    threads.is_empty()
        || threads.iter().any(|&thread| thread == dying || program_of(thread).is_none_or(|it| Some(it) == program))
}

fn program_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn killed(stat: &str) -> bool {
    // The name is in parentheses, and may have some.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let code = fields.split(' ').nth(EXIT_CODE).and_then(|code| code.trim().parse::<u32>().ok());
    code.is_some_and(|code| code & SIGNAL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, code: u32) -> String {
        let fields: Vec<String> = (0..EXIT_CODE).map(|field| field.to_string()).collect();
        format!("123 ({name}) {} {code}\n", fields.join(" "))
    }

    #[test]
    fn a_signal_shows_in_the_exit_code() {
        assert!(killed(&stat("cp", 9)), "SIGKILL");
        assert!(killed(&stat("a ) b", 0x80 | 6)), "SIGABRT, with a core");
        assert!(!killed(&stat("cp", 0)), "it lives");
        assert!(!killed(&stat("cp", 1 << 8)), "it ends with 1");
        assert!(!killed("nonsense"));
    }

    #[test]
    fn we_live_and_are_one_program() {
        let us = std::process::id();
        assert!(!is_dying(us));
        assert!(may_be_of(us, &[]) && may_be_of(us, &[us]));
        assert!(!may_be_of(us, &[1]), "init is another");
    }
}
