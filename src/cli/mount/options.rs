//! What may be chosen about a mount's files and about the disk that they take.

use std::time::Duration;

use clap::Args;

use crate::channel::{Linger, PROBE_SHARE};
use crate::fs::{Fsync, Options, Truncate};
use crate::store::{Choices, Limits};
use crate::units::{count, size, span, span_ms};

/// How the files behave and look.
#[derive(Args, Debug)]
#[command(next_help_heading = "The files")]
pub(super) struct FileArgs {
    /// What fsync(2) waits for: `spool`, this machine's disk, or `stored`, the replicas
    #[arg(long, value_name = "WHAT", default_value = "spool")]
    fsync: Fsync,
    /// How long fsync waits for the replicas; then it fails with ETIMEDOUT, and nothing is lost
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "100")]
    sync_timeout: Duration,
    /// What opening with O_TRUNC does once bytes have left: `refuse` it, or `append`, so that a second `cp` sends the
    /// whole file again behind the first
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    truncate: Truncate,
    /// Send a file of a drop TIME after its last close or rename. A number without a unit counts milliseconds
    #[arg(long, value_name = "TIME", value_parser = span_ms, default_value = "2000")]
    settle_ms: Duration,
    /// Send each file in a drop that was closed, also where the program that wrote it cannot be seen (in a container, or
    /// with hidepid): half a file of a killed program is then sent as whole
    #[arg(long)]
    trust_close: bool,
    /// Refuse every change with EROFS
    #[arg(long)]
    pub(super) read_only: bool,
    /// Let other users in, as far as --umask allows. A user needs `user_allow_other` in /etc/fuse.conf for it
    #[arg(long)]
    pub(super) allow_other: bool,
    /// Whose the files are [default: whoever mounts]
    #[arg(long, value_name = "NUMBER", value_parser = count::<u32>(0..=u64::from(u32::MAX - 1)))]
    uid: Option<u32>,
    /// Of which group the files are [default: that of whoever mounts]
    #[arg(long, value_name = "NUMBER", value_parser = count::<u32>(0..=u64::from(u32::MAX - 1)))]
    gid: Option<u32>,
    /// Permission bits to clear (umask)
    #[arg(long, value_name = "OCTAL", value_parser = permissions, default_value = "077")]
    umask: u32,
}

/// When bytes leave, and how much of the disk they may take.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sending and keeping")]
pub(super) struct DiskArgs {
    /// Send a partly filled box TIME after the last write, at most 10 s after its first byte. A number without a unit counts milliseconds
    #[arg(long, value_name = "TIME", value_parser = span_ms, default_value = "1000")]
    linger_ms: Duration,
    /// Bytes accepted and not yet stored by replicas, over all channels; then writes fail with ENOSPC
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4GiB")]
    spool_limit: u64,
    /// Bytes that have arrived and are kept, over all channels; then reading pauses
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4GiB")]
    cache_limit: u64,
    /// The same of one channel
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GiB")]
    cache_channel_limit: u64,
    /// Bytes that were sent and are kept for reading back; the oldest of more are dropped
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GiB")]
    keep_sent: u64,
    /// The part of the network's pace, from 0 to 1, that looking for what is new may take, for all channels together
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = PROBE_SHARE)]
    probe_share: f64,
}

impl FileArgs {
    pub(super) fn meant(&self) -> Options {
        let default = Options::default();
        Options {
            fsync: self.fsync,
            sync_timeout: self.sync_timeout,
            truncate: self.truncate,
            read_only: self.read_only,
            uid: self.uid.unwrap_or(default.uid),
            gid: self.gid.unwrap_or(default.gid),
            umask: self.umask,
            trust_close: self.trust_close,
            rest: self.settle_ms,
            ..default
        }
    }
}

impl DiskArgs {
    pub(super) fn choices(&self) -> Choices {
        Choices { limits: self.limits(), linger: self.linger(), probe_share: self.probe_share }
    }

    fn linger(&self) -> Linger {
        Linger::with_pause(self.linger_ms)
    }

    fn limits(&self) -> Limits {
        Limits {
            spool_bytes: self.spool_limit,
            cache_bytes: self.cache_limit,
            cache_channel_bytes: self.cache_channel_limit,
            sent_bytes: self.keep_sent,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is not a share from 0 to 1, such as 0.1"))
}

fn permissions(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| format!("{text:?} are not permission bits, such as 077 (octal, at most 777)"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        files: FileArgs,
        #[command(flatten)]
        disk: DiskArgs,
    }

    #[test]
    fn what_is_not_typed_is_the_default_of_the_rooms_below() {
        let line = Line::parse_from(["mount"]);
        assert_eq!(line.files.meant(), Options::default());
        assert_eq!(line.disk.limits(), Limits::default());
        let (linger, default) = (line.disk.linger(), Linger::default());
        assert_eq!((linger.after_last, linger.after_first), (default.after_last, default.after_first));
    }

    #[test]
    fn permission_bits_are_octal() {
        assert_eq!(permissions("027"), Ok(0o27));
        assert!(permissions("8").is_err() && permissions("1000").is_err() && permissions("").is_err());
    }
}
