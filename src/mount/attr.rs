//! Attributes as the kernel wants them.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::fs::{Attributes, Kind, Node};

pub(super) fn attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.node.inode()),
        size: attributes.size,
        blocks: attributes.held.div_ceil(512),
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: attributes.created,
        kind: file_type(attributes.node),
        perm: u16::try_from(attributes.mode).unwrap_or(0),
        nlink: if attributes.node.kind() == Kind::Directory { 2 } else { 1 },
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: attributes.block,
        flags: 0,
    }
}

pub(super) fn file_type(node: Node) -> FileType {
    match node.kind() {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}
