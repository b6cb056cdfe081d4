//! What becomes of a file in a drop by its name alone: most are sent, some programs' own files are not.

use super::super::names::is_desktop_junk;
use crate::model::is_rsync_temporary;

/// Ends of names that programs give to files that they have not finished.
pub(crate) const TEMPORARY_ENDS: &[&str] =
    &[".crdownload", ".download", ".filepart", ".part", ".partial", ".temp", ".tmp"];
/// Beginnings of such names: a desktop's save, rsync's directory of delayed updates.
pub(crate) const TEMPORARY_STARTS: &[&str] = &[".goutputstream-", ".~tmp~"];

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
        || is_rsync_temporary(name)
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
