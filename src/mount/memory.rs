//! Memory that a mount gives back.
//!
//! fuser and the relay have buffers of some MiB for each of their threads. glibc takes large pieces from the system one by one and
//! gives them back when they are freed; but once such a piece was freed it takes pieces of up to that size from the heaps of its
//! threads, which keep them. A process that mounts and unmounts then grows by 16 MiB for each heap, up to some hundred MiB. A
//! threshold that was set stays where it is. It is above what one request carries: a piece that the system gives costs a
//! page fault for each of its pages.

/// Pieces from this size on are the system's; and so much that is free at the end of a heap stays there.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 1 << 20;

/// Has large pieces go back to the system when they are freed, in all of this process, from now on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt(3) has no safe form; it takes two numbers, and the allocator's lock")]
pub(super) fn give_large_pieces_back() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function has no requirements; glibc says that it can be called at any time, from any thread.
        let are_set = [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD]
            .map(|parameter| unsafe { libc::mallopt(parameter, LARGE_BYTES) });
        if are_set.contains(&0) {
            tracing::debug!("the allocator did not take its threshold");
        }
    });
}

/// Other allocators do so by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_large_pieces_back() {}
