//! Every verb with every kind of wrong use: its exit code, what it says is wrong, and what it says to type instead. Nothing
//! of the words of Rust's libraries may be in it.

use crate::common::{Work, run};

/// A line: the exit code, the arguments, what the message says, and what the hint says.
type Line = (i32, &'static str, &'static str, &'static str);

/// What any verb that names one channel refuses in the same way.
const ON_A_CHANNEL: &[&str] =
    &["status", "share", "forget", "trim", "follow", "skip", "adopt", "wait", "append", "read"];

#[rustfmt::skip]
const TABLE: &[Line] = &[
    // No verb, or another one.
    (2, "nonsense", "there is no verb \"nonsense\"", "`pigeonfs help` lists the verbs"),
    (2, "lst", "there is no verb \"lst\"", "did you mean `pigeonfs list`?"),
    (2, "stauts", "there is no verb \"stauts\"", "`pigeonfs status`"),
    (2, "unmount /mnt", "there is no verb \"unmount\"", "`pigeonfs umount`"),
    (2, "--nonsense", "has no option --nonsense", "`pigeonfs help` lists the verbs"),
    (2, "help nosuch", "there is no verb \"nosuch\"", "`pigeonfs help`"),
    (2, "help localnet nosuch", "no command \"nosuch\"", "`pigeonfs help localnet`"),
    (2, "help --man nosuch", "there is no verb \"nosuch\"", "`pigeonfs help`"),
    (2, "completions", "needs SHELL", "completions SHELL"),
    (2, "completions tcsh", "SHELL cannot be \"tcsh\"; it is one of: bash, zsh, fish", "`pigeonfs help completions`"),
    (2, "config nosuch", "takes no further argument", "pigeonfs config"),
    // Options of all verbs.
    (2, "list --bogus", "`pigeonfs list` has no option --bogus", "`pigeonfs help list`"),
    (2, "list --jsn", "has no option --jsn", "did you mean --json?"),
    (2, "list --json=3", "--json takes no value", "write --json alone"),
    (2, "list extra", "takes no further argument, and \"extra\" was given", "pigeonfs list"),
    (2, "list -q -v", "--quiet cannot be combined with --verbose", "`pigeonfs help list`"),
    (2, "list --log pigeonfs=loud=er", "is not a log filter", "pigeonfs::engine=debug"),
    (2, "list --log", "--log needs a value: --log FILTER", "`pigeonfs help list`"),
    // mount and umount.
    (2, "mount", "`pigeonfs mount` needs MNT", "pigeonfs mount MNT"),
    (2, "mount a b", "takes no further argument, and \"b\" was given", "pigeonfs mount"),
    (2, "mount --localnet --daemon @x m", "--localnet cannot be combined with --daemon", "`pigeonfs help mount`"),
    (2, "mount --config f --daemon @x m", "cannot be combined", "`pigeonfs help mount`"),
    (2, "mount --config f --localnet m", "cannot be combined", "`pigeonfs help mount`"),
    (2, "mount --fsync never m", "--fsync", "`pigeonfs help mount`"),
    (2, "mount --truncate maybe m", "--truncate", "`pigeonfs help mount`"),
    (2, "mount --sync-timeout soon m", "--sync-timeout: \"soon\" is not a span of time; spans are written as 30 (seconds)", "help mount"),
    (2, "mount --sync-timeout 999999w m", "--sync-timeout: \"999999w\" is too long", "help mount"),
    (2, "mount --sync-timeout= m", "--sync-timeout", "`pigeonfs help mount`"),
    (2, "mount --linger-ms x m", "--linger-ms: \"x\" is not a span of time; spans are written as 1000 (milliseconds)", "help mount"),
    (2, "mount --linger-ms -5 m", "-5", "help mount"),
    (2, "mount --settle-ms 1.2.3 m", "--settle-ms: \"1.2.3\" is not a span of time", "help mount"),
    (2, "mount --drain-timeout never m", "--drain-timeout: \"never\" is not a span of time", "help mount"),
    (2, "mount --spool-limit lots m", "--spool-limit: \"lots\" is not a size; sizes are written as 1000, 10k, 1.5GiB or 4GB", "help mount"),
    (2, "mount --spool-limit 99999999999T m", "--spool-limit: \"99999999999T\" is too large", "help mount"),
    (2, "mount --cache-limit 1x m", "--cache-limit: \"1x\" is not a size", "help mount"),
    (2, "mount --cache-channel-limit -- m", "--cache-channel-limit needs a value", "help mount"),
    (2, "mount --keep-sent 1,5G m", "--keep-sent: \"1,5G\" is not a size", "help mount"),
    (2, "mount --probe-share 2 m", "--probe-share: \"2\" is not a share from 0 to 1, such as 0.1", "help mount"),
    (2, "mount --umask 888 m", "--umask: \"888\" are not permission bits, such as 077", "help mount"),
    (2, "mount --umask 1777 m", "--umask: \"1777\" are not permission bits", "help mount"),
    (2, "mount --uid root m", "--uid: \"root\" is not a whole number from 0 to 4294967294, such as 3", "help mount"),
    (2, "mount --gid 99999999999 m", "--gid: \"99999999999\" is not a whole number", "help mount"),
    (2, "mount --uid -1 m", "-1", "help mount"),
    (2, "mount --read-only=yes m", "--read-only takes no value", "write --read-only alone"),
    (2, "mount --profile fast m", "--profile cannot be \"fast\"; it is one of: instant, docker, namenlos", "help mount"),
    (2, "mount --time-scale 0 m", "--time-scale: \"0\" is not a number above 0 and up to 1000000, such as 0.5", "help mount"),
    (2, "mount --time-scale fast m", "--time-scale: \"fast\" is not a number", "help mount"),
    (2, "mount --profile docker m", "--profile and --time-scale", ""),
    (2, "mount --daemonize --bogus m", "has no option --bogus", "help mount"),
    (2, "mount --localnet /nosuch/place", "/nosuch/place", "mkdir"),
    (2, "umount", "`pigeonfs umount` needs MNT", "pigeonfs umount MNT"),
    (2, "umount --lazy=1 m", "--lazy takes no value", "write --lazy alone"),
    // localnet.
    (2, "localnet extra", "no command \"extra\"", "`pigeonfs help localnet`"),
    (2, "localnet --loss 2", "--loss: \"2\" is not a rate from 0 to 1, such as 0.05", "help localnet"),
    (2, "localnet --loss much", "--loss: \"much\" is not a rate", "help localnet"),
    (2, "localnet --layers 0", "--layers: \"0\" is not a whole number from 1 to 16, such as 3", "help localnet"),
    (2, "localnet --layers 17", "--layers: \"17\" is not a whole number from 1 to 16", "help localnet"),
    (2, "localnet --layers three", "--layers: \"three\" is not a whole number", "help localnet"),
    (2, "localnet --replicas 1", "--replicas: \"1\" is not a whole number from 2 to 64, such as 3", "help localnet"),
    (2, "localnet --couriers 65", "--couriers: \"65\" is not a whole number from 1 to 64", "help localnet"),
    (2, "localnet --seed x", "--seed: \"x\" is not a whole number, such as 3", "help localnet"),
    (2, "localnet --seed 99999999999999999999", "--seed: \"99999999999999999999\" is not a whole number", "help localnet"),
    (2, "localnet --network-ms x", "--network-ms: \"x\" is not a span of time", "help localnet"),
    (2, "localnet --encrypt-ms 1y", "--encrypt-ms: \"1y\" is not a span of time", "help localnet"),
    (2, "localnet --delay-ms x", "--delay-ms: \"x\" is not a span of time", "help localnet"),
    (2, "localnet --epoch-duration 10ms", "--epoch-duration: \"10ms\" is too short for an epoch", "help localnet"),
    (2, "localnet --session-grace soon", "--session-grace: \"soon\" is not a span of time", "help localnet"),
    (2, "localnet --max-plaintext many", "--max-plaintext: \"many\" is not a whole number", "help localnet"),
    (2, "localnet --lambda-p 0", "--lambda-p: \"0\" is not a number above 0", "help localnet"),
    (2, "localnet --mu x", "--mu: \"x\" is not a number above 0", "help localnet"),
    (2, "localnet --listen", "--listen needs a value: --listen ADDR", "help localnet"),
    (2, "localnet --listen nowhere:x", "--listen", "help localnet"),
    (2, "localnet --disconnect-after-bytes x", "--disconnect-after-bytes: \"x\" is not a size", "help localnet"),
    (2, "localnet ctl nosuch", "no command \"nosuch\"", "`pigeonfs help localnet ctl`"),
    (2, "localnet ctl clock tomorrow", "\"tomorrow\" is not a jump of the clock, such as +8d, -90m or reset", "help localnet ctl clock"),
    (2, "localnet ctl clock +8x", "\"8x\" is not a span of time", "help localnet ctl clock"),
    (2, "localnet ctl faults set", "needs NAME=VALUE", "faults set NAME=VALUE"),
    (2, "localnet ctl faults set loss", "\"loss\" is not a fault: write NAME=VALUE, such as loss=0.1", "help localnet ctl"),
    (2, "localnet ctl faults set loss=much", "\"much\" is neither a number nor on or off", "help localnet ctl"),
    (2, "localnet ctl link sideways", "TO cannot be \"sideways\"; it is one of: up, down", "help localnet ctl link"),
    (4, "localnet ctl stats", "no localnet answers", "--state"),
    // new and names.
    (2, "new", "`pigeonfs new` needs NAME", "pigeonfs new NAME"),
    (2, "new a b", "takes no further argument, and \"b\" was given", "pigeonfs new"),
    (2, "new a/b", "NAME: ", "`pigeonfs help new`"),
    (2, "new ..", "NAME: ", "`pigeonfs help new`"),
    (2, "new .pigeonfs", "NAME: ", "`pigeonfs help new`"),
    (2, "new x --durability maybe", "--durability cannot be \"maybe\"; it is one of: stored, couriered", "help new"),
    (2, "new x --allow-delete", "needs --drop", "--drop"),
    (6, "new there", "named \"there\" already", ""),
    // add and share.
    (2, "add", "`pigeonfs add` needs NAME", "pigeonfs add NAME"),
    (2, "add a/b", "NAME: ", "`pigeonfs help add`"),
    (2, "add x", "there was no text", "pigeonfs share"),
    (1, "add x --file /nosuch", "/nosuch", ""),
    (2, "add x --file", "--file needs a value: --file FILE", "help add"),
    // What takes a span, a size or a level.
    (2, "wait there --timeout soon", "--timeout: \"soon\" is not a span of time", "help wait"),
    (2, "wait there --timeout -1", "-1", "help wait"),
    (2, "wait there --timeout 1 --timeout 2", "--timeout was given twice", "give --timeout once"),
    (2, "wait there --bytes many", "--bytes: \"many\" is not a size", "help wait"),
    (2, "wait there --level maybe", "--level cannot be \"maybe\"; it is one of: stored, couriered", "help wait"),
    (2, "append there --timeout soon", "--timeout: \"soon\" is not a span of time", "help append"),
    (2, "append there --no-wait --timeout 3", "--no-wait cannot be combined with --timeout", "help append"),
    (2, "read there --timeout x", "--timeout: \"x\" is not a span of time", "help read"),
    (2, "read there --offset -3", "-3", "help read"),
    (2, "read there --offset x", "--offset: \"x\" is not a size", "help read"),
    (2, "read there --offset", "--offset needs a value: --offset SIZE", "help read"),
    (2, "follow there --for ever", "--for: \"ever\" is not a span of time", "help follow"),
    (2, "trim there --keep x", "--keep: \"x\" is not a size", "help trim"),
    (2, "skip there --timeout 3", "needs --search", "--search"),
    (2, "skip there --search --timeout x", "--timeout: \"x\" is not a span of time", "help skip"),
    (2, "adopt there --timeout x", "--timeout: \"x\" is not a span of time", "help adopt"),
    (2, "rename there", "needs NEW", "pigeonfs rename"),
    (2, "rename there a/b", "NEW: ", "help rename"),
    (1, "rename nobody other", "there is no channel named \"nobody\"", "pigeonfs list"),
    (2, "move there", "needs NEW", "pigeonfs move"),
    (2, "move there a/b", "NEW: ", "help move"),
    (1, "move nobody other", "there is no channel named \"nobody\"", "pigeonfs list"),
    // send and receive.
    (2, "send", "needs --to NAME and FILE", "pigeonfs send"),
    (2, "send f", "needs --to NAME", "pigeonfs send"),
    (2, "send --to out", "needs FILE", "pigeonfs send"),
    (2, "send f --to a/b", "--to: ", "help send"),
    (2, "send - --to out", "needs a name", "--name"),
    (1, "send /nosuch --to out", "/nosuch", ""),
    (2, "send / --to out", "is a directory", "-r"),
    (2, "send /dev/null --to out", "neither a file nor a directory", "stdin"),
    (2, "send f --to out --timeout x", "--timeout: \"x\" is not a span of time", "help send"),
    (2, "send f --to out --no-wait --timeout 3", "--no-wait cannot be combined with --timeout", "help send"),
    (2, "send f --to out -i x", "an index is not taken from an argument", "--index-file"),
    (2, "send f --to out --write-cap AAAA", "not taken from an argument", "--write-cap-file"),
    (2, "receive", "needs NAME", "pigeonfs receive"),
    (2, "receive a/b", "NAME: ", "help receive"),
    (2, "receive in -o /nosuch/place", "/nosuch/place", "directory"),
    (2, "receive in --timeout x", "--timeout: \"x\" is not a span of time", "help receive"),
    (2, "receive in -i x", "an index is not taken from an argument", "--index-file"),
    (2, "receive in --read-cap AAAA", "not taken from an argument", "--read-cap-file"),
    (1, "receive there", "is a stream", "pigeonfs read"),
    (1, "receive nobody", "there is no channel named \"nobody\"", "pigeonfs list"),
];

#[test]
fn each_wrong_use_says_what_is_wrong_and_what_to_type() {
    let work = Work::new();
    work.verb("s", &["new", "there"]).ok();
    let mut lines: Vec<(i32, String, String, String)> =
        TABLE.iter().map(|(code, line, told, hint)| (*code, (*line).into(), (*told).into(), (*hint).into())).collect();
    for verb in ON_A_CHANNEL {
        let hint = format!("`pigeonfs help {verb}`");
        lines.push((2, format!("{verb} a/b"), "NAME: ".into(), hint.clone()));
        lines.push((2, format!("{verb} there --bogus"), format!("`pigeonfs {verb}` has no option --bogus"), hint));
        lines.push((2, format!("{verb} there too"), "takes no further argument".into(), format!("pigeonfs {verb}")));
        lines.push((
            1,
            format!("{verb} nobody"),
            "there is no channel named \"nobody\"".into(),
            "pigeonfs list".into(),
        ));
    }
    assert!(lines.len() >= 120, "{}", lines.len());
    let mut wrong = Vec::new();
    for (code, line, told, hint) in &lines {
        // append and wait make, or wait for, what is not there.
        if *code == 1 && line.starts_with("append ") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let state = work.path("s");
        let run = run(work.command().env("PIGEONFS_STATE", &state).env("XDG_STATE_HOME", &state).args(&words), b"");
        let error = &run.stderr;
        let rust =
            ["os error", "invalid digit", "Error {", "Err(", "Some(", "unwrap", "panicked", "ErrorKind", "<MNT>"];
        let rust: Vec<_> = rust.iter().filter(|word| error.contains(**word)).collect();
        let hinted =
            hint.is_empty() || error.lines().any(|line| line.starts_with("hint: ") && line.contains(hint.as_str()));
        let in_message = hint == "mkdir" && error.contains("mkdir");
        let fits = run.code == Some(*code)
            && error.lines().any(|line| line.starts_with("error: "))
            && error.contains(told.as_str());
        if !fits || !(hinted || in_message) || !rust.is_empty() || !run.stdout.is_empty() {
            wrong.push(format!("pigeonfs {line}\n  wanted {code}, {told:?}, {hint:?}\n  got {:?}: {error}", run.code));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

#[test]
fn the_same_is_said_in_json() {
    let work = Work::new();
    for words in
        [&["--json"][..], &["nonsense", "--json"], &["list", "--json", "--bogus"], &["status", "nobody", "--json"]]
    {
        let run = work.verb("s", words);
        let told: serde_json::Value = serde_json::from_str(run.stderr.trim()).expect("JSON");
        for key in ["kind", "message", "hint"] {
            assert!(told["error"][key].is_string(), "{words:?}: {told}");
        }
    }
}

/// A capability that was put where a name belongs is not repeated for whoever looks over the shoulder.
#[test]
fn a_long_argument_is_not_repeated() {
    let work = Work::new();
    let secret = "QUJD".repeat(46);
    let index = format!("{}=", "QUJDQUJDQUJDQ".repeat(11).get(..139).expect("longer"));
    let (equals, letter) = (format!("--index={index}"), format!("-i{index}"));
    for words in [
        &["share", &secret][..],
        &["add", "name", &secret],
        &["read", "x", "--offset", &secret],
        &[&secret],
        &["receive", "x", "-i", &index],
        &["receive", "x", &equals],
        &["receive", "x", &letter],
        &["send", "f", "--to", "x", "--index", &index],
        &["--json", "send", "f", "--to", "x", "-i", &index],
    ] {
        let run = work.verb("s", words);
        assert!(matches!(run.code, Some(1 | 2)), "{words:?}: {}", run.stderr);
        assert!(!run.stderr.contains("QUJDQUJDQUJD"), "{words:?}: {}", run.stderr);
    }
}

/// What cannot be written was not done as asked, whichever verb it is.
#[test]
fn a_full_disk_behind_stdout_is_no_success() {
    let work = Work::new();
    work.verb("s", &["new", "log"]).ok();
    work.verb_with("s", &["append", "log", "--no-wait"], b"bytes").ok();
    for line in [
        "--help",
        "--version",
        "help",
        "help mount",
        "help glossary",
        "help --man wait",
        "wait --help",
        "config",
        "config --path",
        "config --json",
        "completions bash",
        "list",
        "list --json",
        "status",
        "status log",
        "status --json",
        "share log",
        "share log --json",
        "read log",
        "trim log",
        "new other --json",
        "rename other another --json",
        "forget another --json",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = work.command();
        command.args(line.split(' ')).arg("--state").arg(work.path("s"));
        let output = command.stdin(std::process::Stdio::null()).stdout(full).output().expect("the binary");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.contains("standard output cannot be written to: No space left on device"), "{line}: {error}");
    }
}
