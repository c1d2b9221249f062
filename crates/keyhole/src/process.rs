//! Process-wide settings of the operating system.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// File descriptors in addition to those of connections: rings, files, listening sockets.
const FILES_BESIDES: u64 = 256;

/// Keeps keys out of core dumps and of other processes' debuggers, and makes new files private to
/// their owner. Logs what the system refuses, and continues.
pub(crate) fn harden() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: these calls take numbers and a pointer to a valid struct, and modify no memory of
    // ours.
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
    // Rust already ignores SIGPIPE.
}

/// Warns, once for each owner, if root runs the node on directories of other users: the files that
/// it creates are root's, and their node could not open them later.
pub(crate) fn warn_of_other_owners(directories: &[&Path]) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut warned = BTreeSet::new();
    for directory in directories {
        // A missing one will belong to root.
        let Ok(owner) = directory.metadata().map(|metadata| metadata.uid()) else { continue };
        if owner != 0 && warned.insert(owner) {
            let path = directory.display();
            tracing::warn!(
                "running as root on {path}, which belongs to user {owner}: new files will belong to root, and a node of \
                 that user cannot open them. Run the node as that user (`setpriv --reuid {owner} --clear-groups keyhole \
                 serve ...`), or give the directory to root (`chown -R root {path}`)"
            );
        }
    }
}

/// Raises the limit of open files for this many connections, up to the hard limit. The default of a
/// login or a service is low for programs that use `select`, which this one does not.
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

/// The action that a signal requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// Shut down; with the signal's name.
    End(&'static str),
    /// Reload the configuration (SIGHUP).
    Reload,
}

/// The signals that the node handles. They must be blocked before any thread starts, so that
/// [`wait`](Self::wait) receives them.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks SIGTERM, SIGINT and SIGHUP for this thread and its later children.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: a zeroed set is a valid argument of sigemptyset, which initialises it.
        let mut set = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid, and the old mask is not requested.
        let result = unsafe {
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigaddset(&mut set, libc::SIGHUP);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        };
        if result == 0 { Ok(Signals(set)) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits for one of the signals, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Signal> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // The limits in use never overflow.
            let timeout = libc::timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: both pointers are to valid values that outlive the call; no signal
            // information is requested.
            match unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &timeout) } {
                libc::SIGHUP => return Some(Signal::Reload),
                libc::SIGINT => return Some(Signal::End("SIGINT")),
                libc::SIGTERM => return Some(Signal::End("SIGTERM")),
                // The timeout has expired, or another event interrupted the call.
                _ if left.is_zero() => return None,
                _ => {}
            }
        }
    }
}
