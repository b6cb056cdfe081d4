//! Names and attributes.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use fuser::{ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry};

use super::files::caching;
use super::{About, Reply, Server, named};
use crate::fs::{Change, Credentials, Fs, Node, Rename};

impl Server {
    pub(super) fn lookup(&self, parent: Node, name: &OsStr, reply: Reply<ReplyEntry>) {
        match self.fs.find(parent, name) {
            Ok(attributes) => reply.entry(&attributes),
            Err(error) => self.fail("lookup", named(parent, name), reply, &error),
        }
    }

    pub(super) fn attributes(&self, node: Node, handle: Option<u64>, reply: Reply<ReplyAttr>) {
        match self.fs.attributes(node, handle) {
            Ok(attributes) => {
                reply.attributes(&attributes);
            }
            Err(error) => self.fail("getattr", About::node(node), reply, &error),
        }
    }

    pub(super) fn change(&self, node: Node, handle: Option<u64>, change: Change, reply: Reply<ReplyAttr>) {
        let work = move |fs: &Fs| fs.change(node, handle, change);
        let fs = Arc::clone(&self.fs);
        let resized = handle.filter(|_| change.size.is_some());
        self.commit("setattr", About::node(node), reply, work, move |reply, attributes| {
            if !reply.attributes(&attributes)
                && let Some(handle) = resized
            {
                fs.call_lost(handle);
            }
        });
    }

    pub(super) fn create(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        flags: i32,
        by: Credentials,
        reply: Reply<ReplyCreate>,
    ) {
        let about = named(parent, name);
        let name = name.to_owned();
        let work = move |fs: &Fs| {
            let opened = fs.create(parent, &name, mode, flags, by)?;
            Ok((fs.attributes(opened.node, Some(opened.handle))?, opened.handle))
        };
        let fs = Arc::clone(&self.fs);
        self.commit("create", about, reply, work, move |reply, (attributes, handle)| {
            if !reply.created(&attributes, handle, caching(attributes.node)) {
                fs.call_lost(handle);
                fs.release(handle);
            }
        });
    }

    pub(super) fn make_node(&self, parent: Node, name: &OsStr, mode: u32, by: Credentials, reply: Reply<ReplyEntry>) {
        if mode & libc::S_IFMT != libc::S_IFREG && mode & libc::S_IFMT != 0 {
            return self.refuse("mknod", parent, name, "special files", reply);
        }
        let about = named(parent, name);
        let name = name.to_owned();
        let work = move |fs: &Fs| fs.make_file(parent, &name, mode, by);
        self.commit("mknod", about, reply, work, |reply, attributes| reply.entry(&attributes));
    }

    pub(super) fn unlink(&self, parent: Node, name: &OsStr, reply: Reply<ReplyEmpty>) {
        let about = named(parent, name);
        let name = name.to_owned();
        self.commit("unlink", about, reply, move |fs| fs.unlink(parent, &name), |reply, ()| reply.done());
    }

    pub(super) fn rename(&self, old: (Node, &OsStr), new: (Node, &OsStr), flags: u32, reply: Reply<ReplyEmpty>) {
        let how = match flags {
            0 => Rename::Replace,
            libc::RENAME_NOREPLACE => Rename::NoReplace,
            libc::RENAME_EXCHANGE => Rename::Exchange,
            _ => return reply.error(libc::EINVAL),
        };
        let (name, new_name): (OsString, OsString) = (old.1.to_owned(), new.1.to_owned());
        let (parent, new_parent) = (old.0, new.0);
        let about = named(old.0, old.1);
        let work = move |fs: &Fs| fs.rename((parent, &name), (new_parent, &new_name), how);
        self.commit("rename", about, reply, work, |reply, ()| reply.done());
    }

    pub(super) fn make_directory(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        by: Credentials,
        reply: Reply<ReplyEntry>,
    ) {
        let about = named(parent, name);
        let name = name.to_owned();
        let work = move |fs: &Fs| fs.make_directory(parent, &name, mode, by);
        self.commit("mkdir", about, reply, work, |reply, attributes| reply.entry(&attributes));
    }

    pub(super) fn remove_directory(&self, parent: Node, name: &OsStr, reply: Reply<ReplyEmpty>) {
        let about = named(parent, name);
        let name = name.to_owned();
        self.commit("rmdir", about, reply, move |fs| fs.remove_directory(parent, &name), |reply, ()| reply.done());
    }

    /// Something that is no stream cannot be made or removed.
    pub(super) fn refuse(
        &self,
        operation: &'static str,
        parent: Node,
        name: &OsStr,
        what: &str,
        reply: Reply<ReplyEntry>,
    ) {
        self.fail(operation, named(parent, name), reply, &self.fs.refuse(parent, what));
    }
}
