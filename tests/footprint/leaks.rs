//! One process that mounts and unmounts time and again keeps nothing of it: no descriptor, thread, mount or memory.
//!
//! `PIGEONFS_CYCLES` makes it longer, as `scripts/torture fs` does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mounted::Mounted;
use pigeonfs::fs::{self, Fs};
use pigeonfs::mount::{MountOptions, Session};

/// Memory that a process may have more of after its mounts, in KiB: what the allocator keeps of small pieces. A buffer of fuser's that
/// is kept is 16 MiB, a relay 2 MiB.
const SLACK: u64 = 12 << 10;

#[test]
fn a_process_that_mounts_and_unmounts_keeps_nothing_of_it() {
    let _alone = crate::alone();
    let Some(mounted) = Mounted::new(false) else { return };
    let cycles = std::env::var("PIGEONFS_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let path = mounted.root.path().join("again");
    std::fs::create_dir(&path).expect("a mount point");
    let mut before = None;
    for n in 0..cycles {
        let fs = Arc::new(Fs::new(Arc::clone(&mounted.owner), fs::Options::default()));
        let runtime = mounted.runtime.handle().clone();
        let session = Session::start(&path, fs, runtime, &MountOptions::default()).expect("mounted");
        std::fs::write(path.join(format!("f{n}")), "text").expect("written");
        assert_eq!(std::fs::read(path.join(format!("f{n}"))).expect("read"), b"text");
        assert!(std::fs::read_dir(&path).expect("listed").count() > n);
        std::fs::remove_file(path.join(format!("f{n}"))).expect("removed");
        std::fs::write(path.join(format!("g{n}")), "text").expect("written");
        session.unmount().expect("unmounted");
        mounted.runtime.block_on(session.ended());
        drop(session);
        if n == cycles / 4 {
            before = Some(footprint());
        }
    }
    let (before, mut after) = (before.expect("it was cycled"), footprint());
    // What answered the last of its calls lets go of the device a moment later.
    let until = Instant::now() + Duration::from_secs(60);
    while after.descriptors > before.descriptors && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        after = footprint();
    }
    assert!(after.descriptors <= before.descriptors, "{before:?} has become {after:?}");
    assert!(after.memory <= before.memory + SLACK, "{before:?} has become {after:?}");
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert!(!table.contains(path.to_str().expect("text")), "{table}");
}

/// What the process has. Threads of the runtime that wait for work come and go, so they are not counted.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    /// Resident, in KiB.
    memory: u64,
}

fn footprint() -> Footprint {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let memory = line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    let targets = std::fs::read_dir("/proc/self/fd").expect("it runs").flatten().map(|entry| entry.path().read_link());
    // The store opens connections that read as they are needed, four at most.
    let is_database = |target: &PathBuf| target.to_string_lossy().contains("/pigeonfs.db");
    let descriptors = targets.filter(|target| !target.as_ref().is_ok_and(is_database)).count();
    Footprint { descriptors, memory }
}
