//! A program that ends with whoever started it.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Has the kernel kill the program when the thread that starts it ends, as it does with its process. The thread has to
/// wait for the program.
pub(super) fn die_with_this_thread(command: &mut Command) {
    let this = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before it was asked for: nothing would come any more.
        if getppid() == Some(this) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing, which is all that is safe there
    // in a process with threads.
    unsafe { command.pre_exec(ask) };
}
