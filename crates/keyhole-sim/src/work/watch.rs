//! Livelock detection: an operation that keeps the disk busy without an end.

use std::cell::RefCell;

/// Maximum number of disk events during one operation, those of other clients included. The longest
/// of 600 lives had 1,556.
const EVENTS_MAX: u64 = 10_000;

/// Maximum number of polls during one operation. The longest of 600 lives had 1,383.
const POLLS_MAX: u64 = 10_000;

/// Work done in a life so far.
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

/// Client operations in flight.
#[derive(Debug, Default)]
pub struct Watch {
    running: RefCell<Vec<Running>>,
}

impl Watch {
    /// Records the beginning of a client's next operation.
    pub fn begin(&self, client: u64, what: &'static str, begun: Work) {
        self.end(client);
        self.running.borrow_mut().push(Running { client, what, begun });
    }

    /// Records that a client has no operation in flight.
    pub fn end(&self, client: u64) {
        self.running.borrow_mut().retain(|running| running.client != client);
    }

    /// Forgets all operations, after the end of the process.
    pub fn clear(&self) {
        self.running.borrow_mut().clear();
    }

    /// Returns the operation that takes too long, if there is one, and the work done meanwhile.
    pub fn livelock(&self, now: Work) -> Option<String> {
        for Running { client, what, begun } in &*self.running.borrow() {
            let events = now.events - begun.events;
            let polls = now.polls - begun.polls;
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
    fn operation_within_bounds_is_not_a_livelock() {
        let watch = Watch::default();
        let begun = Work { events: 7, polls: 7 };
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
