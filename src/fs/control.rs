//! What the control directory says: the owner's status, for programs and for persons.

use std::fmt::Write as _;

use super::{Fs, FsError, Node};
use crate::engine::status::{ChannelStatus, RoleStatus};
use crate::store::ChannelId;

impl Fs {
    /// The contents of a file of the control directory, now.
    pub(super) fn report(&self, node: Node) -> Result<Vec<u8>, FsError> {
        let json = |result: Result<String, serde_json::Error>| {
            let text = result.map_err(|error| FsError::new(libc::EIO, error.to_string()))?;
            Ok((text + "\n").into_bytes())
        };
        match node {
            Node::Status => json(serde_json::to_string_pretty(&self.owner.engine().status()?)),
            Node::ChannelStatus(id) => Ok(for_a_person(&self.status_of(id)?).into_bytes()),
            Node::ChannelStatusJson(id) => json(serde_json::to_string_pretty(&self.status_of(id)?)),
            _ => Err(FsError::quiet(libc::EISDIR, "it is a directory")),
        }
    }

    fn status_of(&self, id: ChannelId) -> Result<ChannelStatus, FsError> {
        Ok(self.owner.engine().channel_status(&self.channel(id)?))
    }
}

fn for_a_person(status: &ChannelStatus) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("name", status.name.clone());
    match status.role {
        RoleStatus::Writer => {
            line("accepted", format!("{} bytes in {} boxes", status.size, status.boxes));
            line("stored", format!("{} bytes in {} boxes", status.stored_bytes, status.stored_boxes));
            line("queued", format!("{} bytes", status.queued_bytes()));
        }
        RoleStatus::Reader => line("arrived", format!("{} bytes in {} boxes", status.size, status.boxes)),
    }
    if status.waiting_for_late_box {
        line("late", "a later box is here; the next one is asked for again".to_owned());
    }
    if let Some(reason) = &status.fenced {
        line("fenced", reason.clone());
    }
    if let Some(error) = &status.error {
        line("error", error.clone());
    }
    text
}
