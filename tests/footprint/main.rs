//! What a process keeps: memory, descriptors, mounts. The tests measure their own process, so they run one after another.

#[path = "../common/mounted.rs"]
mod mounted;

mod leaks;
mod simulated_day;

/// Held by the test that measures.
static MEASURING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Waits until no other test of this process runs.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    MEASURING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
