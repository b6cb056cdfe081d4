//! What becomes of a file in a drop by its name alone: most are sent, some programs' own files are not.

use super::super::names::is_desktop_junk;

/// Ends of names that programs give to files that they have not finished.
pub(crate) const TEMPORARY_ENDS: &[&str] =
    &[".crdownload", ".download", ".filepart", ".part", ".partial", ".temp", ".tmp"];
/// Beginnings of such names: a desktop's save, rsync's directory of delayed updates.
pub(crate) const TEMPORARY_STARTS: &[&str] = &[".goutputstream-", ".~tmp~"];
/// Letters and digits that mkstemp(3) makes up.
const RANDOM: usize = 6;

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lot {
    /// It is sent.
    Sent,
    /// It waits to be renamed: its program has not finished.
    Temporary,
    /// It is a desktop's or an editor's own, and stays here.
    Local,
}

impl Lot {
    /// Of a file with this name, in directories with those: what is in a trash stays there.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut lot = Self::Sent;
        for name in names {
            if is_temporary(name) {
                lot = Self::Temporary;
            } else if is_desktop_junk(name) {
                return Self::Local;
            }
        }
        lot
    }
}

fn is_temporary(name: &str) -> bool {
    TEMPORARY_STARTS.iter().any(|start| name.starts_with(start))
        || TEMPORARY_ENDS.iter().any(|end| name.len() > end.len() && name.ends_with(end))
        || is_rsync(name)
}

/// `.NAME.XXXXXX`. A person's `.config.backup` is not taken for one: what is random has letters or digits of two kinds.
fn is_rsync(name: &str) -> bool {
    let Some((before, random)) = name.rsplit_once('.') else { return false };
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    let found = kinds.iter().filter(|kind| random.as_bytes().iter().any(kind)).count();
    before.len() > 1
        && before.starts_with('.')
        && random.len() == RANDOM
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && found > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_have_not_finished_waits_and_what_persons_write_is_sent() {
        for name in [
            ".report.pdf.aB3xYz",
            ".a.b.c.Qw12er",
            "film.mkv.part",
            "film.crdownload",
            ".goutputstream-A1B2C3",
            "a.tmp",
            ".~tmp~",
        ] {
            assert_eq!(Lot::of([name]), Lot::Temporary, "{name}");
        }
        for name in [".DS_Store", "notes~", ".notes.swp", "._a", ".Trash-1000", "#notes#", ".~lock.a.odt#"] {
            assert_eq!(Lot::of([name]), Lot::Local, "{name}");
        }
        for name in
            ["report.pdf", ".config.backup", "part", ".part", ".bashrc", "a.tmpl", "#", "##", "..aB3xYz", ".x.aB3xY"]
        {
            assert_eq!(Lot::of([name]), Lot::Sent, "{name}");
        }
    }

    #[test]
    fn directories_count_and_what_stays_here_outweighs_what_waits() {
        assert_eq!(Lot::of(["a", ".~tmp~", "b"]), Lot::Temporary);
        assert_eq!(Lot::of([".Trash-1000", "files", "b.part"]), Lot::Local);
        assert_eq!(Lot::of(["b.part", ".DS_Store"]), Lot::Local);
        assert_eq!(Lot::of(["a", "b"]), Lot::Sent);
    }
}
