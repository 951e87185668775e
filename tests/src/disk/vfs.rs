//! The C side of a drive: SQLite's tables of functions, and nothing else. What they do is in [`super::drive`].
//!
//! Three facts make the code sound. SQLite passes to a function of a VFS only pointers that are valid for the call, as
//! its documentation of `sqlite3_vfs` and `sqlite3_io_methods` says, and buffers as long as it says. A VFS and what
//! its `pAppData` points to are leaked, so they outlive every connection. And an [`OpenFile`] holds its [`Handle`]
//! from a successful `open` to `close`: SQLite calls no method before or after, because `pMethods` is null then.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use rusqlite::ffi;

use super::drive::{Code, Handle, Setting, Slot, exists, remove};

/// The sector size that SQLite's unix VFS reports.
const SECTOR_BYTES: c_int = 4_096;
/// A Julian day in milliseconds, for a clock that stands still.
const JULIAN_MILLIS: i64 = 212_000_000_000_000;

/// What SQLite allocates for an open file: its own part first, as it demands.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map),
    xShmLock: Some(lock_shared),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Registers a VFS for a slot. Both stay for as long as the process runs.
pub(super) fn register(name: &str, slot: &'static Slot) {
    node::store::make_sqlite_ready();
    let name = CString::new(name).expect("a name without a zero");
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<OpenFile>() as c_int,
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: name.into_raw(),
        pAppData: ptr::from_ref(slot).cast_mut().cast(),
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
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_millis),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the table and its name are leaked, so they stay valid, and nobody else changes them.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(code, ffi::SQLITE_OK, "the VFS can be registered");
}

/// Runs one call. A panic must not cross C.
fn call(work: impl FnOnce() -> Result<(), Code>) -> c_int {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => ffi::SQLITE_OK,
        Ok(Err(code)) => code,
        Err(_) => ffi::SQLITE_INTERNAL,
    }
}

/// The slot of a VFS.
///
/// # Safety
/// `vfs` is a VFS of [`register`].
unsafe fn slot<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Slot {
    // SAFETY: `register` put a leaked slot there.
    unsafe { &*(*vfs).pAppData.cast::<Slot>() }
}

/// The handle of an open file. SQLite uses a file from one thread at a time, so it is not in use elsewhere.
///
/// # Safety
/// `file` is open.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` put a handle there, which `close` takes back.
    unsafe { &mut *(*file.cast::<OpenFile>()).handle }
}

/// A name; none for a null pointer.
///
/// # Safety
/// `name` is null, or ends with a zero.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    // SAFETY: as the caller says.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default())
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    call(|| {
        // SAFETY: SQLite gives `szOsFile` bytes for the file, and `out_flags` or null.
        unsafe {
            (*file).pMethods = ptr::null();
            let handle = Handle::open(slot(vfs), text(name), flags)?;
            (*file.cast::<OpenFile>()).handle = Box::into_raw(Box::new(handle));
            (*file).pMethods = &raw const METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    call(|| {
        // SAFETY: the file is open, and not used again.
        let mut handle = unsafe { Box::from_raw((*file.cast::<OpenFile>()).handle) };
        handle.close();
        Ok(())
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: the file is open, and the buffer has `bytes` bytes.
    call(|| unsafe { handle(file).read(at as usize, slice::from_raw_parts_mut(into.cast(), bytes as usize)) })
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, of: *const c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: the file is open, and the buffer has `bytes` bytes.
    call(|| unsafe { handle(file).write(at as usize, slice::from_raw_parts(of.cast(), bytes as usize)) })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: the file is open.
    call(|| unsafe { handle(file) }.truncate(length as usize))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: the file is open.
    call(|| unsafe { handle(file) }.sync())
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the file is open, and `out` can be written.
    call(|| unsafe {
        *out = handle(file).size()? as i64;
        Ok(())
    })
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    call(|| unsafe { handle(file) }.lock(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    call(|| unsafe { handle(file) }.unlock(level))
}

unsafe extern "C" fn is_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the file is open, and `out` can be written.
    call(|| unsafe {
        *out = handle(file).is_reserved().into();
        Ok(())
    })
}

unsafe extern "C" fn control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    if what == ffi::SQLITE_FCNTL_MMAP_SIZE {
        // Nothing is mapped, whatever is asked for.
        // SAFETY: the argument is the wanted size, which the one before replaces.
        unsafe { *argument.cast::<i64>() = 0 };
        return ffi::SQLITE_OK;
    }
    if what != ffi::SQLITE_FCNTL_PRAGMA {
        return ffi::SQLITE_NOTFOUND;
    }
    let argument = argument.cast::<*mut c_char>();
    // SAFETY: the file is open; for a PRAGMA the second of the pointers is its name and the third its value or null.
    call(|| unsafe {
        let (name, value) = (text(*argument.add(1)), *argument.add(2));
        if value.is_null() {
            return Err(ffi::SQLITE_NOTFOUND);
        }
        match handle(file).setting(name.unwrap_or_default()) {
            Setting::Pass => Err(ffi::SQLITE_NOTFOUND),
            Setting::Swallow => Ok(()),
            Setting::Replace(other) => {
                // SAFETY: the value is a copy that SQLite has made for this statement, and the other one fits.
                assert!(other.len() <= CStr::from_ptr(value).count_bytes(), "another value is not longer");
                ptr::copy_nonoverlapping(other.as_ptr().cast(), value, other.len());
                *value.add(other.len()) = 0;
                Err(ffi::SQLITE_NOTFOUND)
            }
        }
    })
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // As the unix VFS: bytes beside those that are written stay as they are.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: the file is open, and `out` can be written. A region stays where it is until the file unmaps it or is
    // closed, because the handle shares in owning it; it is made of atomics, so that C may change it at any time.
    call(|| unsafe {
        *out = ptr::null_mut();
        let at = handle(file).map(region as usize, bytes as usize, make != 0)?;
        *out = at.map_or(ptr::null_mut(), <*mut u8>::cast);
        Ok(())
    })
}

unsafe extern "C" fn lock_shared(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: the file is open.
    call(|| unsafe { handle(file) }.lock_shared(first as usize, count as usize, flags))
}

unsafe extern "C" fn barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, _remove: c_int) -> c_int {
    call(|| {
        // SAFETY: the file is open.
        unsafe { handle(file) }.unmap();
        Ok(())
    })
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: the VFS is ours, and a name ends with a zero.
    call(|| unsafe { remove(slot(vfs), text(name).unwrap_or_default(), sync_directory != 0) })
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the VFS is ours, a name ends with a zero, and `out` can be written.
    call(|| unsafe {
        *out = exists(slot(vfs), text(name).unwrap_or_default())?.into();
        Ok(())
    })
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a name ends with a zero, and `out` has room for `bytes` bytes.
    call(|| unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > bytes as usize {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len());
        Ok(())
    })
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    // SAFETY: `out` has room for `bytes` bytes. SQLite draws from its default VFS, which this one never is.
    unsafe { ptr::write_bytes(out, 7, bytes as usize) };
    bytes
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: `out` can be written.
    unsafe { *out = JULIAN_MILLIS as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_millis(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: `out` can be written.
    unsafe { *out = JULIAN_MILLIS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_vfs: *mut ffi::sqlite3_vfs, _bytes: c_int, _out: *mut c_char) -> c_int {
    0
}
