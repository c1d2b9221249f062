//! The figures of the status page: current values, and plots of their history.

use super::plot::{self, Plot, Series};
use super::view::{Datum, Figure, Key, Note};
use crate::status::format::{Quantity, duration, rate, throughput};
use crate::status::{MINUTES, SECONDS, Sample, Samples, Status};

/// Extracts the plotted value of a sample, if it has one.
type Of = fn(&Sample) -> Option<f64>;

/// Plots lines, given by their classes, over seconds and over minutes.
fn plots(
    samples: &Samples,
    what: &str,
    lines: &[(&'static str, Of)],
    least: f64,
    say: impl Fn(f64) -> String + Copy,
) -> [Plot; 2] {
    let draw = |samples: &[Sample], from, slots| {
        let series = lines.iter().map(|(class, of)| Series { class, values: samples.iter().map(of).collect() });
        plot::draw(what, from, slots, &series.collect::<Vec<_>>(), least, say)
    };
    [draw(&samples.seconds, "2 min ago", SECONDS), draw(&samples.minutes, "2 h ago", MINUTES)]
}

pub(super) fn figures(status: &Status, samples: &Samples) -> Vec<Figure> {
    vec![requests(status, samples), payload(status, samples), latency(status, samples), errors(status, samples)]
}

fn key(class: &'static str, name: &'static str, value: Quantity) -> Key {
    Key { class, name, number: value.number, unit: value.unit }
}

fn note(name: &'static str, datum: Datum) -> Note {
    Note { name, datum }
}

fn requests_per_s(value: f64) -> Quantity {
    Quantity { number: rate(value), unit: "/s" }
}

fn per_second(value: f64) -> String {
    format!("{}\u{a0}/s", rate(value).trim_end_matches(".0"))
}

fn requests(status: &Status, samples: &Samples) -> Figure {
    let requests = &status.requests;
    Figure {
        title: "Requests",
        keys: vec![key("one", "", requests_per_s(status.now.requests_per_s))],
        notes: vec![
            note("since start", Datum::count(requests.total)),
            note("with SSE-C", Datum::count(requests.sse_c)),
            note("in flight", Datum::count(requests.in_flight)),
        ],
        plots: plots(samples, "Requests", &[("one", |at| Some(at.per_second(at.requests)))], 1.0, per_second),
    }
}

fn payload(status: &Status, samples: &Samples) -> Figure {
    let now = &status.now;
    let requests = &status.requests;
    let lines: [(_, Of); 2] =
        [("one", |at| Some(at.per_second(at.received))), ("two", |at| Some(at.per_second(at.sent)))];
    Figure {
        title: "Payload",
        keys: vec![key("one", "in", throughput(now.received_per_s)), key("two", "out", throughput(now.sent_per_s))],
        notes: vec![note("in since start", Datum::size(requests.received)), note("out", Datum::size(requests.sent))],
        plots: plots(samples, "Payload", &lines, 1000.0, |value| throughput(value).to_string()),
    }
}

fn latency(status: &Status, samples: &Samples) -> Figure {
    let now = &status.now;
    let requests = &status.requests;
    let of = |seconds: Option<f64>| seconds.map_or_else(|| Quantity { number: "–".to_owned(), unit: "" }, duration);
    let lines: [(_, Of); 2] = [("one", |at| at.p50_s), ("two", |at| at.p99_s)];
    Figure {
        title: "Latency",
        keys: vec![key("one", "p50", of(now.p50_s)), key("two", "p99", of(now.p99_s))],
        notes: vec![note("answers since start", Datum::count(requests.total - requests.aborted))],
        plots: plots(samples, "Latency", &lines, 0.000_1, |value| duration(value).to_string()),
    }
}

fn errors(status: &Status, samples: &Samples) -> Figure {
    let now = &status.now;
    let requests = &status.requests;
    let with_status = |first: char| requests.operations.iter().map(|row| row.with_code(&[first])).sum();
    let lines: [(_, Of); 2] =
        [("three", |at| Some(at.per_second(at.client_errors))), ("four", |at| Some(at.per_second(at.server_errors)))];
    Figure {
        title: "Errors",
        keys: vec![
            key("three", "4xx", requests_per_s(now.client_errors_per_s)),
            key("four", "5xx", requests_per_s(now.server_errors_per_s)),
        ],
        notes: vec![
            note("4xx since start", Datum::count(with_status('4'))),
            note("5xx", Datum::count(with_status('5'))),
            note("aborted", Datum::count(requests.aborted)),
        ],
        plots: plots(samples, "Errors", &lines, 1.0, per_second),
    }
}
