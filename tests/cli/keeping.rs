//! Longer than replicas keep anything: what has expired is sent again, readers who know wait for it, and `verify` and
//! `resend` tell and repair.

use std::process::Stdio;

use crate::common::{Kill, Localnet, Work, bytes, eventually};
use serde_json::Value;

fn json(run: &crate::common::Run) -> Value {
    serde_json::from_slice(&run.stdout).expect("JSON")
}

fn later(work: &Work, days: u32) {
    work.verb("net", &["localnet", "ctl", "clock", &format!("+{days}d")]).ok();
}

/// `keep --run` in the background.
fn keeper(work: &Work, network: &Localnet, state: &str) -> Kill {
    let mut command = work.command();
    command.args(["keep", "--run", "--config", network.config(), "--state"]).arg(work.path(state));
    Kill(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary"))
}

#[test]
fn verify_says_what_is_gone_and_resend_repairs_it() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let sent = bytes(40_000, 1);
    work.verb_with("a", &[&["append", "notes"], &daemon[..]].concat(), &sent).ok();
    work.share("a", "b", "notes");
    work.verb("b", &[&["read", "notes"], &daemon[..]].concat()).ok();
    let verify = |state: &str, further: &[&str]| {
        work.verb(state, &[&["verify", "notes", "--json"], further, &daemon[..]].concat())
    };
    for state in ["a", "b"] {
        let told = json(&verify(state, &[]).ok());
        assert_eq!((&told["there"], &told["gone"], &told["not_asked"]), (&26.into(), &0.into(), &0.into()), "{told}");
    }
    assert_eq!(json(&verify("b", &["--sample", "5"]).ok())["not_asked"], 21);
    work.verb("b", &[&["resend", "notes"], &daemon[..]].concat()).failed(5, &["only its writer"]);

    later(&work, 14);
    let told = json(&verify("b", &[]).failed(1, &["26 boxes", "box 0", "pigeonfs resend"]));
    assert_eq!(told["gone"], 26, "{told}");
    // What holds byte 20,000, and what is behind it.
    let told = json(&work.verb("a", &[&["resend", "notes", "--from", "20000", "--json"], &daemon[..]].concat()).ok());
    assert_eq!((&told["sent_again"], &told["gone"]), (&14.into(), &0.into()), "{told}");
    assert_eq!(json(&verify("b", &[]).failed(1, &["12 boxes"]))["there"], 14);
    let told = json(&work.verb("a", &[&["resend", "notes", "--json"], &daemon[..]].concat()).ok());
    assert_eq!((&told["sent_again"], &told["there"]), (&12.into(), &14.into()), "{told}");
    verify("a", &[]).ok();
    work.share("a", "c", "notes");
    assert!(work.verb("c", &[&["read", "notes"], &daemon[..]].concat()).ok().stdout == sent, "all of it is back");
}

#[test]
fn a_kept_channel_is_read_whole_through_all_epochs_and_never_short() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let sent = bytes(30_000, 2);
    work.verb_with("a", &[&["append", "notes"], &daemon[..]].concat(), &sent).ok();
    let told = json(&work.verb("a", &["keep", "notes", "--for", "90d", "--dry-run", "--json"]).ok());
    assert_eq!((&told["boxes"], &told["packets_per_two_weeks"]), (&20.into(), &80.into()), "{told}");
    let status = |state: &str| json(&work.verb(state, &["status", "notes", "--json"]).ok());
    assert!(status("a")["kept_until"].is_null(), "a dry run changes nothing");
    work.verb("a", &["keep", "notes", "--for", "30d"]).ok();
    assert!(status("a")["kept_until"].is_u64());
    for week in 0..2 {
        later(&work, 14);
        let reader = format!("reader-{week}");
        work.share("a", &reader, "notes");
        assert_eq!(
            status(&reader)["kept_until"].as_u64().map(|at| at / 60),
            status("a")["kept_until"].as_u64().map(|at| at / 60)
        );
        // Nothing is there, and that is not the end.
        work.verb(&reader, &[&["read", "notes", "--timeout", "1"], &daemon[..]].concat())
            .failed(3, &["the time is up"]);
        let mut keeper = keeper(&work, &network, "a");
        let read = ["wait", "notes", "--bytes", "30000", "--timeout", "200"];
        work.verb(&reader, &[&read[..], &daemon[..]].concat()).ok();
        let _ = keeper.0.kill();
        let read = work.verb(&reader, &[&["read", "notes", "--timeout", "1"], &daemon[..]].concat());
        assert!(read.stdout == sent, "week {week}: {} bytes", read.stdout.len());
        eventually("the keeper's end", || keeper.0.try_wait().expect("our child"));
    }
    // 30 days are over: nothing more is sent again.
    later(&work, 14);
    work.share("a", "late", "notes");
    work.verb("a", &[&["keep", "--run", "--timeout", "3"], &daemon[..]].concat()).failed(3, &["the time is up"]);
    work.verb("a", &[&["verify", "notes"], &daemon[..]].concat()).failed(1, &["20 boxes"]);
}

#[test]
fn what_cannot_be_kept_is_said() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    work.share("a", "b", "notes");
    work.verb("b", &["keep", "notes", "--for", "90d"]).failed(5, &["only its writer"]);
    work.verb("a", &["keep", "notes"]).failed(2, &["--for"]);
    work.verb("a", &["keep", "notes", "--for", "90d", "--keep-share", "2"]).failed(2, &["is not a share"]);
    work.verb("a", &["keep", "--run", "--timeout", "1"]).failed(1, &["no channel is to be kept"]);
}
