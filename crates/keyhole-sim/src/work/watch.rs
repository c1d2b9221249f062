//! How long an operation of a client may take: an operation that never ends, while the disk is kept busy, is a livelock.

use std::cell::RefCell;

/// Events of the disk during one operation, those of other clients included. The longest one of 600 lives had 1,556.
const EVENTS_MAX: u64 = 10_000;

/// Polls of tasks during one operation. The longest one of 600 lives had 1,383.
const POLLS_MAX: u64 = 10_000;

/// Work that has been done in a life so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Events of the disk.
    pub events: u64,
    /// Polls of tasks.
    pub polls: u64,
}

#[derive(Debug)]
struct Running {
    client: u64,
    what: &'static str,
    begun: Work,
}

/// Operations of clients that are under way.
#[derive(Debug, Default)]
pub struct Watch {
    running: RefCell<Vec<Running>>,
}

impl Watch {
    /// A client begins its next operation.
    pub fn begin(&self, client: u64, what: &'static str, begun: Work) {
        self.end(client);
        self.running.borrow_mut().push(Running { client, what, begun });
    }

    /// A client has no operation under way.
    pub fn end(&self, client: u64) {
        self.running.borrow_mut().retain(|running| running.client != client);
    }

    /// No client has an operation under way: the process has ended.
    pub fn clear(&self) {
        self.running.borrow_mut().clear();
    }

    /// The operation that takes too long, if there is one, and what was done meanwhile.
    pub fn livelock(&self, now: Work) -> Option<String> {
        for Running { client, what, begun } in &*self.running.borrow() {
            let (events, polls) = (now.events - begun.events, now.polls - begun.polls);
            if events > EVENTS_MAX || polls > POLLS_MAX {
                return Some(format!(
                    "livelock: {what} of client {client} has not ended after {events} events of the disk and {polls} polls"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_within_bounds_is_no_livelock() {
        let (watch, begun) = (Watch::default(), Work { events: 7, polls: 7 });
        watch.begin(1, "put", begun);
        let most = Work { events: 7 + EVENTS_MAX, polls: 7 + POLLS_MAX };
        assert_eq!(watch.livelock(most), None);
        for beyond in [Work { events: most.events + 1, ..begun }, Work { polls: most.polls + 1, ..begun }] {
            let said = watch.livelock(beyond).expect("one of the bounds is passed");
            assert!(said.starts_with("livelock: put of client 1 "), "{said}");
        }
        watch.begin(1, "get", most);
        assert_eq!(
            watch.livelock(Work { events: most.events + 1, ..most }),
            None,
            "the next operation has its own bounds"
        );
    }
}
