//! `mount.pigeonfs STATE MNT [-sfnv] [-o OPTION,...]`: what mount(8) calls for a line of fstab, as the arguments of
//! `pigeonfs mount`. `mount.fuse.pigeonfs` is the same.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::engine::control::{Failure, FailureKind};

/// Options that are for mount(8), systemd or nobody, and those that hold anyway.
const NOTHING: &[&str] = &[
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "nosuid",
    "nodev",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    // What was written is on the disk when the write returns, and so is a name.
    "sync",
    "async",
    "dirsync",
    "noiversion",
    "nomand",
    "symfollow",
    "nosymfollow",
    "silent",
    "loud",
    "default_permissions",
];
/// Options that would ask for what this mount never does, and why.
const NEVER: &[(&str, &str)] = &[
    ("suid", "files of a mount never run as another user"),
    ("dev", "there are no devices in a mount"),
    ("exec", "what comes from the network is never run from a mount"),
    ("remount", "unmount it, and mount it with the other options"),
    ("bind", "a mount is no other directory"),
    ("rbind", "a mount is no other directory"),
    ("move", "a mount is no other directory"),
    ("iversion", "files have no version number"),
    ("mand", "locks are advisory"),
    ("nonempty", "files at the mount point would be hidden"),
    ("context", "files have no security labels"),
    ("fscontext", "files have no security labels"),
    ("defcontext", "files have no security labels"),
    ("rootcontext", "files have no security labels"),
    ("usrquota", "`spool_limit` bounds what is written"),
    ("grpquota", "`spool_limit` bounds what is written"),
    ("quota", "`spool_limit` bounds what is written"),
    ("acl", "permissions are those of `umask`"),
];
/// Options with other names here.
const OTHERWISE: &[(&str, &str)] = &[("ro", "read-only")];

/// Whether the program was called by a name that mount(8) calls.
pub(crate) fn is_called(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| name == "mount.pigeonfs" || name == "mount.fuse.pigeonfs")
}

/// The arguments of `pigeonfs mount` that mean the same; none where mount(8) only asks us to pretend. `known` says
/// which options `pigeonfs mount` has, and whether each takes a value.
pub(crate) fn translate(
    arguments: &[OsString],
    known: impl Fn(&str) -> Option<bool>,
) -> Result<Option<Vec<OsString>>, Failure> {
    let (mut places, mut options) = (Vec::new(), Vec::new());
    let (mut sloppy, mut fake, mut verbose) = (false, false, false);
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let Some(flags) = argument.as_bytes().strip_prefix(b"-").filter(|flags| !flags.is_empty()) else {
            places.push(argument.clone());
            continue;
        };
        for (at, &letter) in flags.iter().enumerate() {
            match letter {
                b's' => sloppy = true,
                b'f' => fake = true,
                b'v' => verbose = true,
                b'n' => {}
                b'o' | b't' | b'N' => {
                    let missing = || usage(&format!("-{} wants a value", char::from(letter)));
                    let value = match &flags[at + 1..] {
                        [] => rest.next().cloned().ok_or_else(missing)?,
                        attached => OsStr::from_bytes(attached).to_owned(),
                    };
                    if letter == b'o' {
                        options.push(value);
                    }
                    break;
                }
                _ => return Err(usage(&format!("there is no -{}", char::from(letter)))),
            }
        }
    }
    let [source, mount_point] =
        <[OsString; 2]>::try_from(places).map_err(|_| usage("it wants a state directory and a mount point"))?;
    if fake {
        return Ok(None);
    }
    let mut meant: Vec<OsString> = ["pigeonfs", "mount", "--daemonize", "--source"].map(OsString::from).to_vec();
    meant.push(source.clone());
    if source != "none" && source != "pigeonfs" {
        meant.extend(["--state".into(), source]);
    }
    if verbose {
        meant.push("--verbose".into());
    }
    for list in options {
        for option in split(&list) {
            meant.extend(meaning(&option, sloppy, &known)?);
        }
    }
    meant.extend(["--".into(), mount_point]);
    Ok(Some(meant))
}

/// The options of a list. A backslash takes the meaning of the comma behind it away.
fn split(list: &OsStr) -> Vec<Vec<u8>> {
    let (mut options, mut current) = (Vec::new(), Vec::new());
    let mut bytes = list.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' => options.push(std::mem::take(&mut current)),
            b'\\' => current.push(bytes.next().unwrap_or(b'\\')),
            _ => current.push(byte),
        }
    }
    options.push(current);
    options.retain(|option| !option.is_empty());
    options
}

fn meaning(option: &[u8], sloppy: bool, known: impl Fn(&str) -> Option<bool>) -> Result<Option<OsString>, Failure> {
    let (name, value) = match option.iter().position(|&byte| byte == b'=') {
        Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]))),
        None => (option, None),
    };
    // An option with a name that is no text is none that is known.
    let name = &*String::from_utf8_lossy(name);
    if NOTHING.contains(&name) || name.starts_with("x-") || name.starts_with("X-") || name == "comment" {
        return Ok(None);
    }
    if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == name) {
        return if sloppy { Ok(None) } else { Err(usage(&format!("-o {name} cannot be had here: {why}"))) };
    }
    let flag = OTHERWISE.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours).replace('_', "-");
    match (known(&flag), value) {
        (Some(false), None) => Ok(Some(format!("--{flag}").into())),
        (Some(true), Some(value)) => {
            let mut meant = OsString::from(format!("--{flag}="));
            meant.push(value);
            Ok(Some(meant))
        }
        (Some(true), None) => Err(usage(&format!("-o {name} wants a value: {name}=..."))),
        (Some(false), Some(_)) => Err(usage(&format!("-o {name} takes no value"))),
        (None, _) if sloppy => Ok(None),
        (None, _) => Err(usage(&format!("there is no option {name:?}"))),
    }
}

fn usage(what: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("mount.pigeonfs: {what}")).hint(
        "mount.pigeonfs STATE MNT -o OPTION,...  where an option is one of `pigeonfs mount --help`, as spool_limit=1GiB",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(flag: &str) -> Option<bool> {
        match flag {
            "read-only" | "localnet" => Some(false),
            "spool-limit" | "config" => Some(true),
            _ => None,
        }
    }

    fn meant(line: &[&str]) -> Result<Option<Vec<String>>, String> {
        let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
        let texts = |words: Vec<OsString>| words.into_iter().map(|word| word.into_string().expect("text")).collect();
        translate(&arguments, known).map(|some| some.map(texts)).map_err(|failure| failure.message)
    }

    #[test]
    fn a_line_of_fstab_is_a_mount_in_the_background() {
        let line = ["/sbin/mount.pigeonfs", "/s", "/m", "-o", "rw,noauto,user,x-systemd.automount,spool_limit=1GiB,ro"];
        let words = "pigeonfs mount --daemonize --source /s --state /s --spool-limit=1GiB --read-only -- /m";
        assert_eq!(meant(&line), Ok(Some(words.split(' ').map(str::to_owned).collect())));
    }

    #[test]
    fn the_flags_of_mount_are_understood() {
        assert_eq!(meant(&["mount.pigeonfs", "-f", "/s", "/m"]), Ok(None), "pretend");
        let words = "pigeonfs mount --daemonize --source none --verbose --localnet -- /m";
        let sloppy = ["mount.pigeonfs", "none", "/m", "-snv", "-t", "fuse.pigeonfs", "-olocalnet,what"];
        assert_eq!(meant(&sloppy), Ok(Some(words.split(' ').map(str::to_owned).collect())));
    }

    #[test]
    fn a_comma_may_be_in_a_value() {
        let found = meant(&["mount.pigeonfs", "none", "/m", "-o", r"config=/a\,b.toml"]).expect("meant").expect("some");
        assert!(found.contains(&"--config=/a,b.toml".to_owned()), "{found:?}");
    }

    #[test]
    fn a_value_may_be_no_text() {
        let list = OsStr::from_bytes(b"config=/caf\xe9.toml");
        let line = ["mount.pigeonfs", "none", "/m", "-o"].map(OsString::from).into_iter().chain([list.to_owned()]);
        let words = translate(&line.collect::<Vec<_>>(), known).ok().flatten().expect("meant");
        assert!(words.iter().any(|word| word.as_bytes() == b"--config=/caf\xe9.toml"), "{words:?}");
    }

    #[test]
    fn what_cannot_be_meant_says_so() {
        for (options, told) in [
            ("what", "there is no option \"what\""),
            ("exec", "cannot be had here: what comes from the network"),
            ("sync,dev", "-o dev cannot be had here: there are no devices"),
            ("iversion", "-o iversion cannot be had"),
            ("remount", "unmount it, and mount it"),
            ("spool_limit", "wants a value"),
            ("localnet=1", "takes no value"),
        ] {
            let error = meant(&["mount.pigeonfs", "/s", "/m", "-o", options]).expect_err(options);
            assert!(error.contains(told), "{error}");
        }
        assert!(meant(&["mount.pigeonfs", "/s"]).expect_err("no mount point").contains("wants a state directory"));
        assert!(meant(&["mount.pigeonfs", "/s", "/m", "-q"]).expect_err("no flag").contains("no -q"));
    }
}
