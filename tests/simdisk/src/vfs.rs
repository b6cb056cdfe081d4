//! The VFS: SQLite's calls in C, turned into what a disk does. All that is `unsafe` is here.
//!
//! Pointers that SQLite passes are valid for the call, and a `sqlite3_file` is one of ours from a successful `xOpen` to
//! its `xClose`: that is SQLite's promise, on which every function here relies. A VFS is leaked, so that it outlives every
//! connection.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{Operation, Shared};
use crate::image::Event;

/// A registered VFS.
pub(crate) struct Registration {
    name: String,
    vfs: &'static Registered,
}

struct Registered(*mut sqlite3_vfs);

// SAFETY: SQLite takes its own lock for the list of VFSs; the pointer is only handed back to it.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registration {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn end(&self) {
        // SAFETY: it was registered, and is never freed.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs.0) };
    }
}

/// What a VFS knows.
struct App {
    shared: Arc<Shared>,
    memory: Arc<Mutex<HashMap<String, SharedMemory>>>,
}

/// The shared memory beside a database, which is on no disk.
#[derive(Default)]
struct SharedMemory {
    users: usize,
    regions: Vec<Box<[u64]>>,
    /// Of each of the eight locks: how many share it; -1: one has it alone.
    locks: [i32; ffi::SQLITE_SHM_NLOCK as usize],
}

pub(crate) fn register(name: &str, shared: Arc<Shared>) -> Registration {
    let app = Box::leak(Box::new(App { shared, memory: Arc::default() }));
    let c_name = Box::leak(CString::new(name).expect("a name without NUL").into_boxed_c_str());
    let vfs = Box::leak(Box::new(sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<Open>()).expect("small"),
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: c_name.as_ptr(),
        pAppData: ptr::from_mut(app).cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    let vfs: *mut sqlite3_vfs = vfs;
    // SAFETY: it is complete and is never freed.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the VFS");
    Registration { name: name.to_owned(), vfs: Box::leak(Box::new(Registered(vfs))) }
}

/// A file as SQLite allocates it: its own part first.
#[repr(C)]
struct Open {
    base: sqlite3_file,
    handle: MaybeUninit<Box<Handle>>,
}

struct Handle {
    shared: Arc<Shared>,
    memory: Arc<Mutex<HashMap<String, SharedMemory>>>,
    name: String,
    life: u64,
    /// The lock that it has on the file.
    level: c_int,
    /// Whether it uses the shared memory, and which of its locks it shares or has alone.
    maps: bool,
    shares: [bool; ffi::SQLITE_SHM_NLOCK as usize],
    alone: [bool; ffi::SQLITE_SHM_NLOCK as usize],
    goes_with_close: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// The VFS is one of ours.
unsafe fn app<'a>(vfs: *mut sqlite3_vfs) -> &'a App {
    // SAFETY: `register` put it there and leaked it.
    unsafe { &*(*vfs).pAppData.cast::<App>() }
}

/// # Safety
/// The file is one of ours, and open; SQLite uses a file from one thread at a time.
unsafe fn handle<'a>(file: *mut sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` put it there.
    unsafe { (*file.cast::<Open>()).handle.assume_init_mut() }
}

/// # Safety
/// The name ends with NUL.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe {
        (*file).pMethods = ptr::null();
        if name.is_null() {
            // Temporary files: the databases that are tested keep theirs in memory.
            return ffi::SQLITE_CANTOPEN;
        }
        let (app, name) = (app(vfs), text(name));
        let mut state = app.shared.lock();
        if state.fails(Operation::Open, &name) {
            return ffi::SQLITE_CANTOPEN;
        }
        if state.image.file(&name).is_none() {
            if flags & ffi::SQLITE_OPEN_CREATE == 0 {
                return ffi::SQLITE_CANTOPEN;
            }
            state.apply(Event::Truncate { file: name.clone(), length: 0 });
        }
        let handle = Handle {
            shared: Arc::clone(&app.shared),
            memory: Arc::clone(&app.memory),
            name,
            life: state.life,
            level: ffi::SQLITE_LOCK_NONE,
            maps: false,
            shares: Default::default(),
            alone: Default::default(),
            goes_with_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        };
        (*file.cast::<Open>()).handle.write(Box::new(handle));
        (*file).pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe {
        unlock(file, ffi::SQLITE_LOCK_NONE);
        shm_unmap(file, 0);
        let handle = handle(file);
        let mut state = handle.shared.lock();
        if handle.goes_with_close && state.life == handle.life {
            state.apply(Event::Delete { file: handle.name.clone(), synced: true });
        }
        drop(state);
        (*file.cast::<Open>()).handle.assume_init_drop();
        (*file).pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite's promise; see the module. `to` holds `amount` bytes.
    let (handle, to) = unsafe { (handle(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), amount as usize)) };
    let mut state = handle.shared.lock();
    if state.life != handle.life || state.fails(Operation::Read, &handle.name) {
        return ffi::SQLITE_IOERR_READ;
    }
    let bytes = state.image.file(&handle.name).map_or(&[][..], |bytes| &bytes[..]);
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let there = &bytes[from..(from + to.len()).min(bytes.len())];
    to[..there.len()].copy_from_slice(there);
    if there.len() == to.len() {
        return ffi::SQLITE_OK;
    }
    to[there.len()..].fill(0);
    ffi::SQLITE_IOERR_SHORT_READ
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite's promise; see the module. `from` holds `amount` bytes.
    let (handle, bytes) = unsafe { (handle(file), std::slice::from_raw_parts(from.cast::<u8>(), amount as usize)) };
    let mut state = handle.shared.lock();
    if state.life != handle.life || state.fails(Operation::Write, &handle.name) {
        return ffi::SQLITE_IOERR_WRITE;
    }
    let offset = offset as u64;
    if !state.has_room(&handle.name, offset + bytes.len() as u64) {
        return ffi::SQLITE_FULL;
    }
    state.apply(Event::Write { file: handle.name.clone(), offset, bytes: bytes.to_vec() });
    ffi::SQLITE_OK
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    let mut state = handle.shared.lock();
    if state.life != handle.life || state.fails(Operation::Write, &handle.name) {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    if !state.has_room(&handle.name, length as u64) {
        return ffi::SQLITE_FULL;
    }
    state.apply(Event::Truncate { file: handle.name.clone(), length: length as u64 });
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    let mut state = handle.shared.lock();
    if state.life != handle.life {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    if state.fails(Operation::Sync, &handle.name) {
        state.apply(Event::FailedSync { file: handle.name.clone() });
        return ffi::SQLITE_IOERR_FSYNC;
    }
    state.apply(Event::Sync { file: handle.name.clone() });
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe {
        let handle = handle(file);
        let state = handle.shared.lock();
        if state.life != handle.life {
            return ffi::SQLITE_IOERR_FSTAT;
        }
        *size = state.image.file(&handle.name).map_or(0, |bytes| bytes.len() as sqlite3_int64);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    let mut state = handle.shared.lock();
    if state.life != handle.life {
        return ffi::SQLITE_IOERR_LOCK;
    }
    let locks = state.locks.entry(handle.name.clone()).or_default();
    if handle.level >= level {
        return ffi::SQLITE_OK;
    }
    if handle.level == ffi::SQLITE_LOCK_NONE {
        if locks.pending || locks.exclusive {
            return ffi::SQLITE_BUSY;
        }
        locks.shared += 1;
        handle.level = ffi::SQLITE_LOCK_SHARED;
    }
    if level >= ffi::SQLITE_LOCK_RESERVED && handle.level < ffi::SQLITE_LOCK_RESERVED {
        if locks.reserved {
            return ffi::SQLITE_BUSY;
        }
        locks.reserved = true;
        handle.level = ffi::SQLITE_LOCK_RESERVED;
    }
    if level == ffi::SQLITE_LOCK_EXCLUSIVE {
        locks.pending = true;
        handle.level = ffi::SQLITE_LOCK_PENDING;
        if locks.shared > 1 {
            return ffi::SQLITE_BUSY;
        }
        locks.exclusive = true;
        handle.level = ffi::SQLITE_LOCK_EXCLUSIVE;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    let mut state = handle.shared.lock();
    if state.life != handle.life || handle.level <= level {
        handle.level = handle.level.min(level);
        return ffi::SQLITE_OK;
    }
    let locks = state.locks.entry(handle.name.clone()).or_default();
    if handle.level >= ffi::SQLITE_LOCK_RESERVED {
        locks.reserved = false;
    }
    if handle.level >= ffi::SQLITE_LOCK_PENDING {
        (locks.pending, locks.exclusive) = (false, false);
    }
    if level == ffi::SQLITE_LOCK_NONE {
        locks.shared -= 1;
    }
    handle.level = level;
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe {
        let handle = handle(file);
        let state = handle.shared.lock();
        *out = c_int::from(state.locks.get(&handle.name).is_some_and(|locks| locks.reserved));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_: *mut sqlite3_file) -> c_int {
    // As SQLite takes it for every file of the operating system: a write that is cut short harms nothing beside it.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite's promise; see the module. A region stays where it is until its last user is gone.
    unsafe {
        let handle = handle(file);
        let mut memory = handle.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = memory.entry(format!("{} {}", handle.life, handle.name)).or_default();
        if !std::mem::replace(&mut handle.maps, true) {
            shared.users += 1;
        }
        *out = ptr::null_mut();
        let region = region as usize;
        while extend != 0 && shared.regions.len() <= region {
            shared.regions.push(vec![0; size as usize / 8].into_boxed_slice());
        }
        if let Some(region) = shared.regions.get_mut(region) {
            *out = region.as_mut_ptr().cast();
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    let mut memory = handle.memory.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = memory.entry(format!("{} {}", handle.life, handle.name)).or_default();
    let range = offset as usize..(offset + count) as usize;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        for at in range {
            if std::mem::take(&mut handle.alone[at]) {
                shared.locks[at] = 0;
            }
            if std::mem::take(&mut handle.shares[at]) {
                shared.locks[at] -= 1;
            }
        }
    } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
        if range.clone().any(|at| shared.locks[at] < 0 && !handle.alone[at]) {
            return ffi::SQLITE_BUSY;
        }
        for at in range {
            if !std::mem::replace(&mut handle.shares[at], true) {
                shared.locks[at] += 1;
            }
        }
    } else {
        let free = |at: usize| shared.locks[at] == 0 || handle.alone[at];
        if !range.clone().all(free) {
            return ffi::SQLITE_BUSY;
        }
        for at in range {
            handle.alone[at] = true;
            shared.locks[at] = -1;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let handle = unsafe { handle(file) };
    if !std::mem::take(&mut handle.maps) {
        return ffi::SQLITE_OK;
    }
    let mut memory = handle.memory.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{} {}", handle.life, handle.name);
    if let Some(shared) = memory.get_mut(&key) {
        shared.users -= 1;
        if shared.users == 0 {
            memory.remove(&key);
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, synced: c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    let (app, name) = unsafe { (app(vfs), text(name)) };
    let mut state = app.shared.lock();
    if state.image.file(&name).is_none() {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    if state.fails(Operation::Write, &name) {
        return ffi::SQLITE_IOERR_DELETE;
    }
    state.apply(Event::Delete { file: name, synced: synced != 0 });
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe {
        let (app, name) = (app(vfs), text(name));
        *out = c_int::from(app.shared.lock().image.file(&name).is_some());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(_: *mut sqlite3_vfs, name: *const c_char, size: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's promise; see the module. `out` holds `size` bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > size as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's promise; see the module. `out` holds `count` bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count as usize) };
    // Only names of temporary files come of it.
    out.fill(7);
    count
}

unsafe extern "C" fn sleep(_: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(microseconds as u64));
    microseconds
}

/// Milliseconds since noon of the first day of the Julian calendar.
fn julian_milliseconds() -> sqlite3_int64 {
    const UNIX_EPOCH_MS: sqlite3_int64 = 210_866_760_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH_MS + since.as_millis() as sqlite3_int64
}

unsafe extern "C" fn current_time(_: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe { *out = julian_milliseconds() as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite's promise; see the module.
    unsafe { *out = julian_milliseconds() };
    ffi::SQLITE_OK
}
