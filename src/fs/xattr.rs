//! Extended attributes: what a script wants to know of a channel, each by its name. They are found by their names and not listed; none
//! can be set, none is a secret.

use std::ffi::OsStr;

use sha2::{Digest, Sha256};

use super::{Fs, FsError, Node};
use crate::store::{Capability, Channel, Role};

const PREFIX: &str = "user.pigeonhole.";
/// What a fingerprint is the hash of, before the channel's root public key.
const FINGERPRINT: &[u8] = b"pigeonfs channel fingerprint v1";

impl Fs {
    /// The names of a file's attributes, each with its NUL. None is listed: what copies files with their attributes would
    /// fail to set ours, or take a channel's fingerprint along.
    pub fn attribute_names(&self, node: Node) -> Result<Vec<u8>, FsError> {
        if let Node::Channel(id) | Node::Drop(id) = node {
            self.attributes(Node::Channel(id), None)?;
        }
        Ok(Vec::new())
    }

    /// The value of one.
    pub fn attribute(&self, node: Node, name: &OsStr) -> Result<Vec<u8>, FsError> {
        let missing = || FsError::quiet(libc::ENODATA, "there is no such attribute");
        let name = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).ok_or_else(missing)?;
        if let (Node::DropFile(entry), "state") = (node, name) {
            return Ok(self.dropped_standing(entry)?.ok_or_else(missing)?.into());
        }
        let (Node::Channel(id) | Node::Drop(id)) = node else { return Err(missing()) };
        let channel = self.channel(id)?;
        let text = match name {
            "kind" if channel.content.is_drop() => "drop".to_owned(),
            "kind" => "stream".to_owned(),
            "access" if channel.role == Role::Writer => "write".to_owned(),
            "access" => "read".to_owned(),
            "state" => self.standing(&channel).to_owned(),
            "boxes" if channel.role == Role::Writer => channel.boxes.to_string(),
            "boxes" => channel.frontier.to_string(),
            "box_bytes" => channel.max_plaintext.to_string(),
            "fingerprint" => fingerprint(&self.owner.store().cap(id)?),
            "stored" if channel.role == Role::Writer => channel.stored_bytes.to_string(),
            "frontier" if channel.role == Role::Reader => channel.frontier.to_string(),
            _ => return Err(missing()),
        };
        Ok(text.into_bytes())
    }

    /// How a channel stands, in one word.
    pub(super) fn standing(&self, channel: &Channel) -> &'static str {
        if channel.fence.is_some() {
            return "fenced";
        }
        if self.owner.engine().refusal(channel).is_some() {
            return "refused";
        }
        if channel.content.is_drop()
            && channel.role == Role::Writer
            && self.owner.store().drop_counts(channel.id).is_ok_and(|counts| counts.pending > 0)
        {
            return "queued";
        }
        match channel.role {
            Role::Writer if channel.size == 0 => "empty",
            Role::Writer if channel.stored_bytes == channel.size => "stored",
            Role::Writer => "queued",
            Role::Reader if channel.paused => "paused",
            Role::Reader if channel.is_lost() => "lost",
            Role::Reader if channel.later_known => "late",
            Role::Reader if channel.end_is_known() => "up-to-date",
            Role::Reader => "catching-up",
        }
    }
}

/// The same for the writer and for every reader of one channel, and of no use but to compare.
fn fingerprint(cap: &Capability) -> String {
    let bytes = match cap {
        Capability::Write(cap) => cap.read_cap().to_bytes(),
        Capability::Read(cap) => cap.to_bytes(),
    };
    let digest = Sha256::new().chain_update(FINGERPRINT).chain_update(&bytes[..32]).finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
