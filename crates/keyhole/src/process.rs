//! What is asked of the system for the process as a whole.

use std::io;

/// Keeps keys out of core dumps and out of the reach of other processes' debuggers, and lets writes to closed sockets be
/// errors. Whatever of it the system refuses is said, and no reason to stop.
pub(crate) fn harden() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: these calls take numbers and a pointer to a valid struct, and touch no memory of ours.
    let refused = unsafe {
        [
            ("PR_SET_DUMPABLE", libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0)),
            ("RLIMIT_CORE", libc::setrlimit(libc::RLIMIT_CORE, &none)),
        ]
    };
    for (name, result) in refused {
        if result != 0 {
            tracing::warn!("the system refuses {name}: core dumps could hold keys");
        }
    }
    // Rust ignores SIGPIPE by itself.
}

/// The signals that end the node. They must be blocked before any thread starts, so that [`wait`](Self::wait) gets them.
pub(crate) struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks SIGTERM and SIGINT for this thread and those it starts.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: a zeroed set is a valid argument of sigemptyset, which initialises it.
        let mut set = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid, and the old mask is not asked for.
        let result = unsafe {
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        };
        if result == 0 { Ok(EndSignals(set)) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits for one of them; its name.
    pub(crate) fn wait(&self) -> &'static str {
        let mut signal = 0;
        // SAFETY: both pointers are to valid values that outlive the call.
        while unsafe { libc::sigwait(&self.0, &mut signal) } != 0 {}
        if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" }
    }
}
