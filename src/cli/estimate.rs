//! What sending would take, before it is done: `--dry-run`, and the warning of what comes to its end too late.

use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, failure, output};
use crate::engine::control::{Link, Request, Response};
use crate::units::{show_date, show_span};

/// What sending takes.
pub(super) struct Estimate {
    boxes: u64,
    packets: u64,
    boxes_before: u64,
    seconds: u64,
    pace_is_known: bool,
    first_expires_at: u64,
    kept_until: Option<u64>,
}

impl Estimate {
    /// Of files with headers of so many bytes, and contents of so many; a stream has no header.
    pub(super) async fn of(link: &Link, name: &str, lengths: Vec<(u64, u64)>) -> Result<Self, Stop> {
        match link.request(Request::Estimate { name: name.to_owned(), lengths }).await? {
            Response::Estimated {
                boxes,
                packets,
                boxes_before,
                seconds,
                pace_is_known,
                first_expires_at,
                kept_until,
            } => Ok(Self { boxes, packets, boxes_before, seconds, pace_is_known, first_expires_at, kept_until }),
            _ => Err(misunderstood()),
        }
    }

    /// Whether its beginning is gone before its end is there. What is kept until then is sent again.
    fn ends_too_late(&self) -> bool {
        let end = crate::engine::status::unix_seconds(std::time::SystemTime::now()).saturating_add(self.seconds);
        self.pace_is_known && end > self.first_expires_at && self.kept_until.is_none_or(|until| until < end)
    }

    /// Warns where its beginning is gone before its end is there.
    pub(super) fn warn(&self, name: &str) {
        if self.ends_too_late() {
            failure::warn(&format!(
                "at the present pace this takes {}, and its beginning can be gone from {} on, before its end is there: \
                 `pigeonfs keep {name} --for SPAN` has it sent again",
                show_span(self.seconds.saturating_mul(1000)),
                show_date(self.first_expires_at),
            ));
        }
    }

    /// Prints it.
    pub(super) fn print(&self, context: &Context, name: &str, files: Option<usize>, bytes: u64) -> Result<(), Stop> {
        self.warn(name);
        if context.json {
            return output::json(&json!({
                "name": name,
                "dry_run": true,
                "files": files,
                "bytes": bytes,
                "boxes": self.boxes,
                "packets": self.packets,
                "boxes_before": self.boxes_before,
                "seconds": self.seconds,
                "pace_is_known": self.pace_is_known,
                "first_expires_at": self.first_expires_at,
            }));
        }
        let pace =
            if self.pace_is_known { "at the present pace" } else { "at one packet a second: no network is connected" };
        let before = match self.boxes_before {
            0 => String::new(),
            boxes => format!(", with the {boxes} boxes that go first"),
        };
        let mut rows = Vec::new();
        if let Some(files) = files {
            rows.push(["files".to_owned(), files.to_string()]);
        }
        rows.extend([
            ["bytes".to_owned(), bytes.to_string()],
            ["boxes".to_owned(), format!("about {}, in {} packets", self.boxes, self.packets)],
            ["time".to_owned(), format!("about {}, {pace}{before}", show_span(self.seconds.saturating_mul(1000)))],
            ["expires".to_owned(), format!("the first box, from {} on", show_date(self.first_expires_at))],
        ]);
        output::table(&rows)
    }
}
