//! The plots of the report.

use svg::Document;

use super::document::Subject;
use super::figures::{Figures, Unit};
use super::limits::{Limit, Measure, promises};
use super::plot::{self, Bar, Colour, Heading, Line};
use super::scenario::{CHUNKS, LARGE, LIMITED, MANY, MIB, Population, SMALL, Scenario, Server};

/// Returns the plots by name.
pub(super) fn plots(subject: &Subject<'_>, figures: &Figures<'_>) -> Vec<(&'static str, Document)> {
    let note = format!(
        "{}, {} cores shared with the generator; medians of turns: {}",
        subject.machine.processor, subject.machine.cores, subject.turns
    );
    let tls = |load: Scenario| load.on(Server::KeyholeTls);
    let large = [
        Scenario::get(MIB).cold(),
        Scenario::get(MIB),
        Scenario::get(LARGE).cold(),
        Scenario::get(LARGE),
        Scenario::put(MIB),
        Scenario::put(LARGE),
        tls(Scenario::get(MIB)),
        tls(Scenario::put(MIB)),
    ];
    let packaged = |load: Scenario| load.on(Server::Packaged);
    let small = [
        Scenario::get(SMALL),
        packaged(Scenario::get(SMALL)),
        Scenario::put(SMALL),
        packaged(Scenario::put(SMALL)),
        packaged(Scenario::put(SMALL).over(MANY)),
        Scenario::get(CHUNKS).cold(),
        Scenario::get(CHUNKS),
    ];
    vec![
        ("cost", cost_plot(figures, &note, &large, "CPU time of the server for a GiB, s")),
        ("cost-small", cost_plot(figures, &note, &small, "CPU time of the server for a small operation, us")),
        ("throughput", throughput_plot(figures, &note)),
        ("objects", objects_plot(figures, &note)),
    ]
}

/// Returns the limit of a scenario's CPU time relative to its floors.
fn limit_of(scenario: Scenario) -> Option<f64> {
    let promise = promises().into_iter().find(|promise| promise.measure == Measure::Floors(scenario))?;
    let (Limit::AtMost(limit) | Limit::AtLeast(limit)) = promise.limit;
    Some(limit)
}

fn cost_plot(figures: &Figures<'_>, note: &str, scenarios: &[Scenario], title: &str) -> Document {
    let unit = scenarios.first().map_or(Unit::SecondsPerGib, |scenario| Figures::unit(*scenario));
    let scale = if unit == Unit::Microseconds { 1e6 } else { 1.0 };
    let groups = scenarios.iter().map(|&scenario| {
        let floors = figures.floors(scenario);
        let cpu = figures.cpu(scenario);
        let ours = vec![
            (Colour::Network, floors.network * scale),
            (Colour::Encryption, floors.encryption * scale),
            (Colour::Disk, floors.disk * scale),
            (Colour::Rest, (cpu - floors.sum()) * scale),
        ];
        let name = match scenario.server {
            Server::KeyholeTls => format!("{} over TLS", scenario.load()),
            Server::Packaged => format!("{}, packaged", scenario.load()),
            _ => scenario.load(),
        };
        let limit = limit_of(scenario).map(|limit| limit * floors.sum() * scale);
        let mut bars = vec![Bar { name, parts: ours, text: unit.number(cpu), limit }];
        let nginx = if scenario.server.is_tls() { Server::NginxTls } else { Server::Nginx };
        let theirs = figures.cpu(scenario.on(nginx));
        if theirs.is_finite() && scenario.server != Server::Packaged {
            let parts = vec![(Colour::Theirs, theirs * scale)];
            bars.push(Bar { name: "nginx".to_owned(), parts, text: unit.number(theirs), limit: None });
        }
        bars
    });
    let colours = [
        (Colour::Network, "network alone"),
        (Colour::Encryption, "encryption alone"),
        (Colour::Disk, "disk alone"),
        (Colour::Rest, "the rest of Keyhole"),
        (Colour::Theirs, "nginx"),
    ];
    let groups: Vec<Vec<Bar>> = groups.collect();
    plot::bars(Heading { title, note }, &format!("CPU time, {}; the mark is the limit", unit.name()), &colours, &groups)
}

fn throughput_plot(figures: &Figures<'_>, note: &str) -> Document {
    let mut loads = Vec::new();
    for size in [MIB, LARGE] {
        loads.extend([Scenario::get(size).cold(), Scenario::get(size)]);
        loads.extend(LIMITED.map(|memory| Scenario::get(size).cold().within(memory)));
        loads.push(Scenario::put(size));
    }
    let servers =
        [(Server::Keyhole, Colour::Ours), (Server::Baseline, Colour::OursToo), (Server::Nginx, Colour::Theirs)];
    let servers = servers.into_iter().chain([(Server::SeaweedFs, Colour::TheirsToo)]);
    let servers: Vec<_> = servers.filter(|(server, _)| *server == Server::Keyhole || figures.has(*server)).collect();
    let groups = loads.into_iter().map(|load| {
        let bar = |(server, colour): &(Server, Colour)| {
            let value = figures.gib_per_s(load.on(*server));
            let name = if *server == Server::Keyhole { load.load() } else { String::new() };
            let text = Unit::GibPerSecond.number(value);
            value.is_finite().then(|| Bar { name, parts: vec![(*colour, value)], text, limit: None })
        };
        servers.iter().filter_map(bar).collect()
    });
    let names: Vec<(Colour, &str)> = servers.iter().map(|(server, colour)| (*colour, server.name())).collect();
    let groups: Vec<Vec<Bar>> = groups.collect();
    plot::bars(Heading { title: "Throughput", note }, "GiB/s", &names, &groups)
}

fn objects_plot(figures: &Figures<'_>, note: &str) -> Document {
    let points = |load: Scenario| {
        [Population::Least, Population::Usual, Population::Most].map(|population| {
            let scenario = load.of(population);
            (figures.counts.of(&scenario) as f64, figures.cpu(scenario) * 1e6)
        })
    };
    let line = |name: &str, colour, load| Line { name: name.to_owned(), colour, points: points(load).to_vec() };
    let lines = [
        line("Keyhole GET", Colour::Ours, Scenario::get(SMALL)),
        line("Keyhole durable PUT", Colour::OursToo, Scenario::put(SMALL)),
    ];
    let ticks = points(Scenario::get(SMALL)).map(|(count, _)| (count, Unit::PerSecond.number(count)));
    let heading = Heading { title: "CPU time of a 4 KiB operation, by objects", note };
    plot::lines(heading, "objects", "us of the server's CPU time", &ticks, &lines)
}
