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
    let sent = bytes(8000, 1);
    work.verb_with("a", &[&["append", "notes"], &daemon[..]].concat(), &sent).ok();
    work.share("a", "b", "notes");
    work.verb("b", &[&["wait", "notes", "--bytes", "8000"], &daemon[..]].concat()).ok();
    let verify = |state: &str, further: &[&str]| {
        work.verb(state, &[&["verify", "notes", "--json"], further, &daemon[..]].concat())
    };
    let told = json(&verify("a", &[]).ok());
    assert_eq!((&told["there"], &told["gone"], &told["not_asked"]), (&6.into(), &0.into(), &0.into()), "{told}");
    assert_eq!(json(&verify("b", &["--sample", "4"]).ok())["not_asked"], 2);
    work.verb("b", &[&["resend", "notes"], &daemon[..]].concat()).failed(5, &["only its writer"]);

    later(&work, 14);
    let told = json(&verify("b", &[]).failed(1, &["6 boxes", "box 0", "pigeonfs resend"]));
    assert_eq!(told["gone"], 6, "{told}");
    // What holds byte 5,000, and what is behind it.
    let told = json(&work.verb("a", &[&["resend", "notes", "--from", "5000", "--json"], &daemon[..]].concat()).ok());
    assert_eq!((&told["sent_again"], &told["gone"]), (&3.into(), &0.into()), "{told}");
    let told = json(&work.verb("a", &[&["resend", "notes", "--json"], &daemon[..]].concat()).ok());
    assert_eq!((&told["sent_again"], &told["there"]), (&3.into(), &3.into()), "{told}");
    let told = json(&verify("b", &[]).ok());
    assert_eq!(told["there"], 6, "{told}");
}

/// For as many fortnights as `PIGEONFS_ROUNDS` says: `scripts/torture keep`.
#[test]
fn a_kept_channel_is_read_whole_through_all_epochs_and_never_short() {
    let rounds: u32 = std::env::var("PIGEONFS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let size = if rounds == 1 { 5000 } else { 3_000_000 };
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let sent = bytes(size, 2);
    work.verb_with("a", &[&["append", "notes"], &daemon[..]].concat(), &sent).ok();
    let span = format!("{}d", rounds * 14 + 2);
    let told = json(&work.verb("a", &["keep", "notes", "--for", &span, "--dry-run", "--json"]).ok());
    let boxes = sent.len().div_ceil(1549);
    assert_eq!((&told["boxes"], &told["packets_per_two_weeks"]), (&boxes.into(), &(4 * boxes).into()), "{told}");
    let status = |state: &str| json(&work.verb(state, &["status", "notes", "--json"]).ok());
    assert!(status("a")["kept_until"].is_null(), "a dry run changes nothing");
    work.verb("a", &["keep", "notes", "--for", &span]).ok();
    assert!(status("a")["kept_until"].is_u64());
    work.verb("a", &["trim", "notes"]).failed(5, &["is kept on the network until", "--for 0"]);
    for fortnight in 0..rounds {
        later(&work, 14);
        let reader = format!("reader-{fortnight}");
        work.share("a", &reader, "notes");
        let minutes = |state: &str| status(state)["kept_until"].as_u64().map(|at| at / 60);
        assert_eq!(minutes(&reader), minutes("a"), "the capability's text says it");
        let until = |state: &str, field: &str| status(state)[field].as_u64().expect("a time");
        assert!(until(&reader, "unfetched_until") >= until(&reader, "kept_until"));
        // Nothing is there, and that is not the end.
        work.verb(&reader, &[&["read", "notes", "--timeout", "1"], &daemon[..]].concat())
            .failed(3, &["the time is up"]);
        let mut keeper = keeper(&work, &network, "a");
        let wait = ["wait", "notes", "--bytes", &size.to_string(), "--timeout", "500"];
        work.verb(&reader, &[&wait[..], &daemon[..]].concat()).ok();
        let _ = keeper.0.kill();
        let read = work.verb(&reader, &[&["read", "notes", "--timeout", "1"], &daemon[..]].concat());
        assert!(read.stdout == sent, "fortnight {fortnight}: {} bytes", read.stdout.len());
        eventually("the keeper's end", || keeper.0.try_wait().expect("our child"));
        assert_eq!(status("a")["expired_boxes"], 0);
        let week = 7 * 24 * 3600;
        assert!(until("a", "oldest_expires_at") > told["first_expires_at"].as_u64().expect("a time") + week);
    }
    // The time is over: nothing more is sent again.
    later(&work, 14);
    work.verb("a", &[&["keep", "--run", "--timeout", "2"], &daemon[..]].concat())
        .failed(1, &["no channel is to be kept"]);
    work.verb("a", &[&["verify", "notes"], &daemon[..]].concat()).failed(1, &[&format!("{boxes} boxes")]);
}

#[test]
fn a_dry_run_says_what_sending_takes_and_changes_nothing() {
    let work = Work::new();
    // Three boxes a minute: 200 MB take longer than replicas keep the beginning.
    let network = work.localnet_with("slow", &[], &["--lambda-p", "0.0001"]);
    let daemon = ["--config", network.config()];
    work.verb("a", &["new", "notes"]).ok();
    let dry = [&["append", "notes", "--dry-run", "--json"], &daemon[..]].concat();
    let told = json(&work.verb_with("a", &dry, &bytes(8000, 1)).ok());
    assert_eq!((&told["boxes"], &told["packets"], &told["seconds"]), (&6.into(), &12.into(), &120.into()), "{told}");
    assert_eq!(told["pace_is_known"], true);
    let large = work.path("large");
    std::fs::File::create(&large).and_then(|file| file.set_len(200_000_000)).expect("made");
    let send = ["send", large.to_str().expect("text"), "--to", "box", "--dry-run"];
    let told = work.verb("a", &[&send[..], &daemon[..]].concat());
    assert!(told.stderr.contains("pigeonfs keep box --for"), "{}", told.stderr);
    let text = told.ok().text();
    for words in ["200000000", "at the present pace", "the first box, from 20"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    let listed = json(&work.verb("a", &["list", "--json"]).ok());
    assert_eq!((listed["channels"].as_array().map(Vec::len), &listed["channels"][0]["size"]), (Some(1), &0.into()));
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
    let made = json(&work.verb("a", &["new", "backup", "--keep", "90d", "--json"]).ok());
    assert!(made["kept_until"].is_u64(), "{made}");
    work.verb("a", &["keep", "backup", "--for", "0"]).ok();
    work.verb("a", &["keep", "--run", "--timeout", "1"]).failed(1, &["no channel is to be kept"]);
}
