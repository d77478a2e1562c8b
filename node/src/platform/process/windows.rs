//! Windows: job objects hold process trees.
#![allow(unsafe_code, reason = "job objects have no safe wrapper")]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::process::Child;

use windows_sys::Win32::Foundation::{CloseHandle, STILL_ACTIVE};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_JOB_MEMORY, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation,
    JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{GetExitCodeProcess, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION};

/// What programs need to start at all.
pub(super) const ENVIRONMENT: [&str; 8] = [
    "SystemRoot",
    "SystemDrive",
    "windir",
    "ComSpec",
    "PATHEXT",
    "PATH",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
];

/// A job object: its processes and all that they start end together, at the latest when this is dropped.
#[derive(Debug)]
pub struct JobObject(OwnedHandle);

/// What a job's processes have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// User and kernel time, in milliseconds.
    pub cpu_ms: u64,
    /// The largest memory that they had committed together, in bytes.
    pub peak_bytes: u64,
}

impl JobObject {
    /// An empty job object, with a bound on the memory of all its processes in bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn new(memory_bytes: Option<u64>) -> io::Result<Self> {
        // SAFETY: null attributes and a null name are allowed.
        let handle = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is valid and owned by nobody else.
        let job = Self(unsafe { OwnedHandle::from_raw_handle(handle) });
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        if let Some(bytes) = memory_bytes {
            limits.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
            limits.JobMemoryLimit = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        // SAFETY: the pointer is to a value of the class's type, with its size.
        check(unsafe {
            SetInformationJobObject(
                job.0.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32,
            )
        })?;
        Ok(job)
    }

    /// Puts a process, and all that it starts from here on, into the job.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, child: &Child) -> io::Result<()> {
        // SAFETY: both handles are valid while they are borrowed.
        check(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), child.as_raw_handle()) })
    }

    /// Ends every process of the job.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&self) -> io::Result<()> {
        // SAFETY: the handle is valid.
        check(unsafe { TerminateJobObject(self.0.as_raw_handle(), 1) })
    }

    /// What its processes have used so far; zeros where the system does not tell.
    #[must_use]
    pub fn usage(&self) -> JobUsage {
        let mut times = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        let handle = self.0.as_raw_handle();
        // SAFETY: each pointer is to a value of its class's type, with its size.
        unsafe {
            QueryInformationJobObject(
                handle,
                JobObjectBasicAccountingInformation,
                (&raw mut times).cast(),
                size_of::<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION>() as u32,
                std::ptr::null_mut(),
            );
            QueryInformationJobObject(
                handle,
                JobObjectExtendedLimitInformation,
                (&raw mut limits).cast(),
                size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32,
                std::ptr::null_mut(),
            );
        }
        // In steps of 100 nanoseconds.
        let ticks = times.TotalUserTime.saturating_add(times.TotalKernelTime);
        JobUsage { cpu_ms: ticks.unsigned_abs() / 10_000, peak_bytes: limits.PeakJobMemoryUsed as u64 }
    }
}

fn check(done: i32) -> io::Result<()> {
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A cell's job objects die with it: there are no strays.
pub(super) fn kill_strays(_cell_pid: Option<u32>, _mark: &str) {}

pub(super) fn kill_below(_dir: &Path) -> usize {
    0
}

pub(super) fn exists(pid: u32) -> bool {
    let mut code = 0;
    // SAFETY: the handle is checked, used and closed here.
    unsafe {
        let handle = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid);
        if handle.is_null() {
            return false;
        }
        let told = GetExitCodeProcess(handle, &raw mut code) != 0;
        CloseHandle(handle);
        told && code == STILL_ACTIVE as u32
    }
}
