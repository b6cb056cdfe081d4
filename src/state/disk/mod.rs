//! Files and directories of this machine that a stranger may have named, or may replace meanwhile.

pub(crate) mod beneath;
mod place;
mod target;

#[cfg(feature = "cli")]
pub(crate) use target::Writing;
pub(crate) use target::{Directory, Policy, Written};
