//! A terminal for a program.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Stdio;

/// A pair of devices: what a person sees and types, and what a program reads and writes.
pub struct Terminal {
    _person: File,
    program: File,
}

impl Terminal {
    pub fn open() -> Self {
        let (mut person, mut program) = (-1, -1);
        let (name, modes, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
        // SAFETY: places for two files, which are ours then; names and modes are not asked for.
        unsafe {
            let status = libc::openpty(&mut person, &mut program, name, modes, size);
            assert_eq!(status, 0, "a terminal");
            Self {
                _person: File::from_raw_fd(person),
                program: File::from_raw_fd(program),
            }
        }
    }

    /// The side of the program.
    pub fn stdio(&self) -> Stdio {
        self.program.try_clone().unwrap().into()
    }

    /// What is written waits from now on, as after Ctrl-S.
    pub fn stop(&self) {
        // SAFETY: a plain system call on a file that is open.
        unsafe { libc::tcflow(self.program.as_raw_fd(), libc::TCOOFF) };
    }
}
