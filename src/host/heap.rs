//! How the allocator of glibc is used: for a process that is small nearly always and large for moments.
#![allow(unsafe_code)]

/// Blocks of this many bytes and more are mappings of their own, given back when they are freed. Without a word glibc
/// raises this limit to the largest block that was ever freed, and keeps all below it.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Keeps the memory of one moment from being held for ever. To be called before there is a second thread.
///
/// Each thread that finds the heap in use would be given another one, and what is freed in one is of no use in the
/// others. What the threads of this process do is system calls: they hardly ever meet in the heap.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)] {
        // SAFETY: mallopt(3) takes two numbers. Where it knows one of them not, nothing changes, and that is well so.
        let _known = unsafe { libc::mallopt(option, value) };
    }
}
