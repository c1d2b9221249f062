//! What is asked of the system for the process as a whole.

use std::io;
use std::time::{Duration, Instant};

/// Descriptors that a node has besides those of its connections: rings, files, sockets that listen.
const FILES_BESIDES: u64 = 256;

/// Keeps keys out of core dumps and out of the reach of other processes' debuggers, and files that are made for their owner
/// alone. Whatever of it the system refuses is said, and no reason to stop.
pub(crate) fn harden() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: these calls take numbers and a pointer to a valid struct, and touch no memory of ours.
    let refused = unsafe {
        libc::umask(0o077);
        [
            ("PR_SET_DUMPABLE", libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0)),
            ("RLIMIT_CORE", libc::setrlimit(libc::RLIMIT_CORE, &none)),
        ]
    };
    for (name, result) in refused {
        if result != 0 {
            tracing::warn!("the system refuses {name}: core dumps could contain keys");
        }
    }
    // Rust ignores SIGPIPE by itself.
}

/// Makes room for so many connections, as far as the hard limit on open files goes. What a login or a service gets by default is
/// for programs that use `select`; nothing here does.
pub(crate) fn allow_connections(connections: u64) {
    let wanted = connections.saturating_add(FILES_BESIDES);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to a valid struct, which the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 || limit.rlim_cur >= wanted {
        return;
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: a pointer to a valid struct, which the call reads.
    let is_raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    if !is_raised || limit.rlim_cur < wanted {
        tracing::warn!(
            "the system allows {} open files, fewer than {connections} connections need: some will wait; raise the \
             hard limit (ulimit -Hn, LimitNOFILE=)",
            limit.rlim_max
        );
    }
}

/// What a signal asks of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// To end; the signal's name.
    End(&'static str),
    /// To read again what it was configured with: SIGHUP.
    Reload,
}

/// The signals that the node listens to. They must be blocked before any thread starts, so that [`wait`](Self::wait) gets them.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks SIGTERM, SIGINT and SIGHUP for this thread and those it starts.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: a zeroed set is a valid argument of sigemptyset, which initialises it.
        let mut set = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid, and the old mask is not asked for.
        let result = unsafe {
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigaddset(&mut set, libc::SIGHUP);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        };
        if result == 0 { Ok(Signals(set)) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits for one of them, for so long at most.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Signal> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // No limit of ours comes near a time that does not fit.
            let timeout = libc::timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: both pointers are to valid values that outlive the call; what else is known of the signal is not asked for.
            match unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &timeout) } {
                libc::SIGHUP => return Some(Signal::Reload),
                libc::SIGINT => return Some(Signal::End("SIGINT")),
                libc::SIGTERM => return Some(Signal::End("SIGTERM")),
                // The time is over, or something else interrupted it.
                _ if left.is_zero() => return None,
                _ => {}
            }
        }
    }
}
