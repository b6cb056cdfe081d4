//! The policy of the mount: names, handles, access, errno. No FUSE types, no async.
