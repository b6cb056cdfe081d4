//! Names and attributes.

use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use super::files::caching;
use super::{Reply, Server, fail, node};
use crate::fs::{Change, Fs, Node, Rename};
use crate::mount::kernel::{SetAttr, Time};

impl Server {
    pub(super) fn lookup(&self, parent: Node, name: &OsStr, reply: Reply) {
        match self.fs.find(parent, name) {
            Ok(attributes) => reply.entry(&attributes),
            Err(error) => fail("lookup", reply, &error),
        }
    }

    pub(super) fn attributes(&self, node: Node, handle: Option<u64>, reply: Reply) {
        match self.fs.attributes(node, handle) {
            Ok(attributes) => reply.attributes(&attributes),
            Err(error) => fail("getattr", reply, &error),
        }
    }

    pub(super) fn change(&self, node: Node, change: SetAttr, reply: Reply) {
        let SetAttr { mode, uid, gid, size, accessed, modified } = change;
        let change = Change { size, mode, uid, gid, accessed: accessed.map(time), modified: modified.map(time) };
        let work = move |fs: &Fs| fs.change(node, change);
        self.commit("setattr", reply, work, |reply, attributes| reply.attributes(&attributes));
    }

    pub(super) fn create(&self, parent: Node, name: &OsStr, mode: u32, flags: i32, reply: Reply) {
        let name = name.to_owned();
        let work = move |fs: &Fs| {
            let opened = fs.create(parent, &name, mode, flags)?;
            Ok((fs.attributes(opened.node, Some(opened.handle))?, opened.handle))
        };
        self.commit("create", reply, work, |reply, (attributes, handle)| {
            reply.created(&attributes, handle, caching(attributes.node));
        });
    }

    pub(super) fn unlink(&self, parent: Node, name: &OsStr, reply: Reply) {
        let name = name.to_owned();
        self.commit("unlink", reply, move |fs| fs.unlink(parent, &name), |reply, ()| reply.done());
    }

    pub(super) fn rename(&self, old: (Node, &OsStr), new: (u64, &OsStr), flags: u32, reply: Reply) {
        let how = match flags {
            0 => Rename::Replace,
            libc::RENAME_NOREPLACE => Rename::NoReplace,
            libc::RENAME_EXCHANGE => Rename::Exchange,
            _ => return reply.error(libc::EINVAL),
        };
        let (name, new_name): (OsString, OsString) = (old.1.to_owned(), new.1.to_owned());
        let (parent, new_parent) = (old.0, new.0);
        let work = move |fs: &Fs| fs.rename((parent, &name), (node(new_parent)?, &new_name), how);
        self.commit("rename", reply, work, |reply, ()| reply.done());
    }

    pub(super) fn make_directory(&self, parent: Node, name: &OsStr, reply: Reply) {
        let name = name.to_owned();
        let work = move |fs: &Fs| fs.make_directory(parent, &name);
        self.commit("mkdir", reply, work, |reply, attributes| reply.entry(&attributes));
    }

    pub(super) fn remove_directory(&self, parent: Node, name: &OsStr, reply: Reply) {
        let name = name.to_owned();
        self.commit("rmdir", reply, move |fs| fs.remove_directory(parent, &name), |reply, ()| reply.done());
    }

    /// Something that is no stream cannot be made or removed.
    pub(super) fn refuse(&self, operation: &'static str, parent: Node, what: &str, reply: Reply) {
        fail(operation, reply, &self.fs.refuse(parent, what));
    }
}

fn time(time: Time) -> SystemTime {
    match time {
        Time::At(time) => time,
        Time::Now => SystemTime::now(),
    }
}
