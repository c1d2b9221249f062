//! A history of request figures for the last minutes and hours, in constant memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::{Totals, quantile};

/// Second samples kept: two minutes.
pub(crate) const SECONDS: usize = 120;

/// Minute samples kept: two hours.
pub(crate) const MINUTES: usize = 120;

/// Seconds per minute sample.
const PER_MINUTE: u32 = 60;

/// Seconds that current figures are averaged over.
pub(crate) const LATELY: usize = 10;

/// The request figures of a time span.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Sample {
    /// Length of the span in seconds.
    pub(crate) span_s: f64,
    pub(crate) requests: u64,
    /// Payload bytes.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Replies with a status of 400 to 499, and of 500 or more.
    pub(crate) client_errors: u64,
    pub(crate) server_errors: u64,
    /// Latency quantiles in seconds, if there were replies.
    pub(crate) p50_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
}

impl Sample {
    /// Converts a count of this span to a rate per second.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        if self.span_s > 0.0 { count as f64 / self.span_s } else { 0.0 }
    }
}

/// The samples of seconds and of minutes, oldest first.
#[derive(Clone, Default, Debug)]
pub(crate) struct Samples {
    pub(crate) seconds: Vec<Sample>,
    pub(crate) minutes: Vec<Sample>,
}

/// The counters at one time.
struct Mark {
    at: Instant,
    requests: u64,
    received: u64,
    sent: u64,
    client_errors: u64,
    server_errors: u64,
    bins: Vec<u64>,
}

impl Mark {
    fn new(at: Instant, totals: &Totals) -> Self {
        Mark {
            at,
            requests: totals.with_status(|_| true),
            received: totals.received,
            sent: totals.sent,
            client_errors: totals.with_status(|status| (400..500).contains(&status)),
            server_errors: totals.with_status(|status| (500..600).contains(&status)),
            bins: totals.all_bins(),
        }
    }

    /// Returns the sample between an earlier mark and this one.
    fn since(&self, before: &Mark) -> Sample {
        let bins: Vec<u64> = self.bins.iter().zip(&before.bins).map(|(now, then)| now - then).collect();
        Sample {
            span_s: self.at.duration_since(before.at).as_secs_f64(),
            requests: self.requests - before.requests,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            client_errors: self.client_errors - before.client_errors,
            server_errors: self.server_errors - before.server_errors,
            p50_s: quantile(&bins, 0.5),
            p99_s: quantile(&bins, 0.99),
        }
    }
}

/// The samples.
pub(crate) struct History {
    /// The marks of the last seconds, oldest first: one more than [`LATELY`], since each ends a
    /// second.
    marks: VecDeque<Mark>,
    /// The start of the current minute, and the seconds counted in it.
    minute: Mark,
    seconds_in_minute: u32,
    seconds: VecDeque<Sample>,
    minutes: VecDeque<Sample>,
}

impl History {
    pub(crate) fn new(now: Instant, totals: &Totals) -> Self {
        let mut marks = VecDeque::with_capacity(LATELY + 1);
        marks.push_back(Mark::new(now, totals));
        History {
            marks,
            minute: Mark::new(now, totals),
            seconds_in_minute: 0,
            seconds: VecDeque::with_capacity(SECONDS),
            minutes: VecDeque::with_capacity(MINUTES),
        }
    }

    /// Adds the sample of the second that ends now.
    pub(crate) fn sample(&mut self, now: Instant, totals: &Totals) {
        let mark = Mark::new(now, totals);
        if let Some(before) = self.marks.back() {
            push(&mut self.seconds, SECONDS, mark.since(before));
        }
        self.seconds_in_minute += 1;
        if self.seconds_in_minute == PER_MINUTE {
            push(&mut self.minutes, MINUTES, mark.since(&self.minute));
            self.minute = Mark::new(now, totals);
            self.seconds_in_minute = 0;
        }
        push(&mut self.marks, LATELY + 1, mark);
    }

    /// Returns up to [`LATELY`] last seconds as one sample; an empty one at first.
    pub(crate) fn lately(&self) -> Sample {
        match (self.marks.front(), self.marks.back()) {
            (Some(first), Some(last)) if self.marks.len() > 1 => last.since(first),
            _ => Sample::default(),
        }
    }

    /// Returns the samples of seconds and of minutes, oldest first.
    pub(crate) fn samples(&self) -> Samples {
        Samples { seconds: self.seconds.iter().copied().collect(), minutes: self.minutes.iter().copied().collect() }
    }
}

/// Appends an item, dropping the oldest one if the ring is full.
fn push<T>(ring: &mut VecDeque<T>, room: usize, item: T) {
    if ring.len() == room {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// The time spans that the samples cover.
const _: () = assert!(SECONDS as u64 == Duration::from_secs(120).as_secs() && MINUTES == 2 * 60);

#[cfg(test)]
mod tests {
    use keyhole_node::{Exchange, Observer};

    use super::*;
    use crate::metrics::{Counting, Metrics};

    fn finish(counting: &Counting, count: usize, status: u16, took: Duration) {
        for _ in 0..count {
            counting.finished(&Exchange {
                request_id: "1",
                peer: ([127, 0, 0, 1], 1).into(),
                client: [127, 0, 0, 1].into(),
                secure: true,
                method: "GET",
                resource: "/",
                operation: Some("GetObject"),
                claimed_operation: None,
                bucket: None,
                key: None,
                access_key: None,
                sse_c: false,
                is_unauthenticated: false,
                sealed_objects: &[],
                key_id: None,
                status,
                error: None,
                received: 10,
                sent: 100,
                took,
            });
        }
    }

    #[test]
    fn samples_cover_seconds_and_minutes() {
        let metrics = Metrics::new(1);
        let counting = Counting(metrics.clone());
        let start = Instant::now();
        let mut history = History::new(start, &metrics.totals());
        assert_eq!(history.lately(), Sample::default());
        for second in 1..=300u64 {
            finish(&counting, second as usize, 200, Duration::from_millis(second));
            finish(&counting, 1, 404, Duration::from_millis(second));
            finish(&counting, 2, 503, Duration::from_millis(second));
            history.sample(start + Duration::from_secs(second), &metrics.totals());
        }
        let Samples { seconds, minutes } = history.samples();
        assert_eq!((seconds.len(), minutes.len()), (SECONDS, 5));
        let last = seconds[SECONDS - 1];
        assert_eq!((last.requests, last.client_errors, last.server_errors), (303, 1, 2));
        assert_eq!((last.received, last.sent, last.per_second(last.requests)), (3030, 30_300, 303.0));
        assert!((last.p99_s.unwrap() - 0.3).abs() < 0.015);
        assert_eq!(seconds[0].requests, 181 + 3, "the oldest two minutes are gone");
        let requests: Vec<u64> = minutes.iter().map(|minute| minute.requests).collect();
        assert_eq!(
            requests,
            [0, 1, 2, 3, 4].map(|minute| (1..=60).map(|second| minute * 60 + second + 3).sum::<u64>())
        );
        assert_eq!(minutes[4].span_s, 60.0);
        let lately = history.lately();
        assert_eq!((lately.span_s, lately.requests), (10.0, (291..=300).map(|second| second + 3).sum::<u64>()));
    }

    #[test]
    fn history_memory_is_constant() {
        let metrics = Metrics::new(1);
        let start = Instant::now();
        let mut history = History::new(start, &metrics.totals());
        for second in 1..=(MINUTES as u64 + 3) * 60 {
            history.sample(start + Duration::from_secs(second), &metrics.totals());
        }
        let Samples { seconds, minutes } = history.samples();
        assert_eq!((seconds.len(), minutes.len(), history.marks.len()), (SECONDS, MINUTES, LATELY + 1));
        assert!(seconds.iter().all(|second| second.requests == 0 && second.p50_s.is_none()));
    }
}
