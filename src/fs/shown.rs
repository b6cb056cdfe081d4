//! What a file is called in a line of the log.

use super::{Fs, Node};
use crate::store::ChannelId;

impl Fs {
    /// The path of a file from the mount's own directory, as far as it is known; `/` is that directory itself.
    pub fn path_of(&self, node: Node) -> String {
        let channel = |id: ChannelId| {
            let found = self.owner.store().channel(id).ok().flatten();
            found.map_or_else(|| format!("channel {}", id.0), |channel| channel.name.to_string())
        };
        match node {
            Node::Root => "/".to_owned(),
            Node::Control => ".pigeonfs".to_owned(),
            Node::Status => ".pigeonfs/status.json".to_owned(),
            Node::Channel(id) | Node::Drop(id) => channel(id),
            Node::ChannelControl(id) => format!(".pigeonfs/{}", channel(id)),
            Node::Report(id, report) => format!(".pigeonfs/{}/{}", channel(id), report.name()),
            Node::DropDirectory(entry) | Node::DropFile(entry) => match self.dropped_path(entry) {
                Some((id, names)) => format!("{}/{}", channel(id), names.join("/")),
                None => "a file that was removed".to_owned(),
            },
        }
    }

    /// What an open file is of.
    pub fn node_of(&self, handle: u64) -> Option<Node> {
        Some(self.handles().find(handle).ok()?.node)
    }
}
