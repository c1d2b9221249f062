//! A single-threaded executor in virtual time, whose order of tasks follows from the seed.
//!
//! The seed picks the next of the runnable tasks. Without a runnable task, time advances to
//! the next wake-up. Without a pending wake-up either, the tasks are deadlocked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::random::Random;

/// Maximum number of polls without an end, to detect tasks that only wake each other.
const POLLS_MAX: u64 = 20_000_000;

/// Virtual time and the order of events in it.
#[derive(Debug, Default)]
pub struct Clock {
    now: Cell<u64>,
    ticks: Cell<u64>,
    polls: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
}

impl Clock {
    /// Returns a number higher than all before, which orders events.
    pub fn tick(&self) -> u64 {
        self.ticks.set(self.ticks.get() + 1);
        self.ticks.get()
    }

    /// Returns the number of polls so far.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Returns the virtual time.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Waits for this long in virtual time.
    pub fn sleep(self: &Rc<Self>, time: u64) -> Sleep {
        Sleep { clock: Rc::clone(self), until: self.now() + time, key: None }
    }

    /// Advances to the next wake-up; returns false if there are no more.
    fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.sleepers.borrow_mut().pop_first() else { return false };
        self.now.set(at.max(self.now()));
        waker.wake();
        true
    }
}

/// A timer in virtual time.
#[derive(Debug)]
pub struct Sleep {
    clock: Rc<Clock>,
    until: u64,
    key: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let key = self.key.unwrap_or_else(|| (self.until, self.clock.tick()));
        if self.key.is_some() && self.until <= self.clock.now() {
            return Poll::Ready(());
        }
        self.clock.sleepers.borrow_mut().insert(key, cx.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.sleepers.borrow_mut().remove(&key);
        }
    }
}

/// Yields once.
#[derive(Debug)]
pub struct Turn(bool);

impl Turn {
    /// Creates a future that is pending once.
    pub fn once() -> Self {
        Turn(false)
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The reason why [`Executor::run`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The awaited condition holds.
    Done,
    /// The machine has stopped.
    Halted,
    /// Deadlock: all tasks are blocked, and the awaited condition does not hold.
    Stalled,
    /// A task panicked with this message.
    Panicked(String),
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

/// Tasks and their clock.
pub struct Executor {
    clock: Rc<Clock>,
    random: Random,
    tasks: Vec<Option<Task>>,
    ready: Arc<Mutex<Vec<usize>>>,
    polls: u64,
}

impl Executor {
    /// Creates an executor without tasks.
    pub fn new(clock: Rc<Clock>, random: Random) -> Self {
        Executor { clock, random, tasks: Vec::new(), ready: Arc::default(), polls: 0 }
    }

    /// Starts a task; the cell holds its result once it has ended.
    pub fn spawn<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Rc<RefCell<Option<T>>> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        let id = self.tasks.len();
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        Arc::clone(&waker).wake();
        let future = async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        };
        self.tasks.push(Some(Task { future: Box::pin(future), waker }));
        result
    }

    /// Runs until `done` or `halted` returns true, or until all tasks are blocked.
    pub fn run(&mut self, halted: impl Fn() -> bool, done: impl Fn() -> bool) -> Stop {
        loop {
            if halted() {
                return Stop::Halted;
            }
            if done() {
                return Stop::Done;
            }
            let next = {
                let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                match ready.len() as u64 {
                    0 => None,
                    len => Some(ready.swap_remove(self.random.below(len) as usize)),
                }
            };
            let Some(id) = next else {
                if !self.clock.advance() {
                    return Stop::Stalled;
                }
                continue;
            };
            if let Err(panic) = self.poll(id) {
                return Stop::Panicked(panic);
            }
            self.polls += 1;
            self.clock.polls.set(self.clock.polls.get() + 1);
            if self.polls > POLLS_MAX {
                return Stop::Panicked(format!("no end after {POLLS_MAX} polls"));
            }
        }
    }

    fn poll(&mut self, id: usize) -> Result<(), String> {
        let Some(task) = &mut self.tasks[id] else { return Ok(()) };
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.waker));
        let future = task.future.as_mut();
        let poll = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))));
        match poll {
            Ok(Poll::Pending) => Ok(()),
            Ok(Poll::Ready(())) => self.drop_task(id),
            Err(_) => Err(crate::panics::taken()),
        }
    }

    fn drop_task(&mut self, id: usize) -> Result<(), String> {
        let task = self.tasks[id].take();
        catch_unwind(AssertUnwindSafe(|| drop(task))).map_err(|_| crate::panics::taken())
    }

    /// Drops all tasks where they stand, as the death of the process does.
    ///
    /// # Errors
    /// The message of a panic in a destructor.
    pub fn kill(mut self) -> Result<(), String> {
        for id in 0..self.tasks.len() {
            if let Err(panic) = self.drop_task(id) {
                self.forget();
                return Err(panic);
            }
        }
        Ok(())
    }

    /// Leaks the tasks after a panic: a second panic while they are dropped would abort the
    /// process.
    pub fn forget(mut self) {
        std::mem::forget(std::mem::take(&mut self.tasks));
    }
}
