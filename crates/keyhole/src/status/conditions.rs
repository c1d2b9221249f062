//! The conditions that need the operator's attention.

use std::time::Duration;

use keyhole_log::Stats;

use super::model::{Clock, Condition, Severity};
use super::monitor::{Phase, STUCK};
use super::remote::RemoteStatus;
use crate::store::ASKED_READ_ONLY;

/// The inputs of the conditions.
pub(super) struct ConditionInputs<'a> {
    pub(super) phase: Phase,
    pub(super) stats: Option<&'a Stats>,
    pub(super) quiet: &'a [Duration],
    pub(super) damaged: u64,
    pub(super) clock: &'a Clock,
    /// The reason if the object file is no longer in place.
    pub(super) absence: Option<&'a str>,
    pub(super) remotes: &'a [RemoteStatus],
}

impl ConditionInputs<'_> {
    /// Returns the conditions that hold, the most important ones first.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        let mut add = |name: &str, severity, text: String| {
            all.push(Condition { name: name.to_owned(), severity, text });
        };
        match self.phase {
            Phase::Starting => add("starting", Severity::Note, "The store is being opened.".to_owned()),
            Phase::Serving => {}
            Phase::Draining => {
                add("draining", Severity::Note, "The node is shutting down: it accepts no more requests.".to_owned());
            }
        }
        if self.stats.is_some_and(|stats| stats.poisoned) {
            add("poisoned", Severity::Fault, self.poisoned());
        }
        if let Some(why) = self.stats.and_then(|stats| stats.read_only.as_deref()) {
            let asked = why == ASKED_READ_ONLY;
            let way_out = if asked {
                "Start the node without --read-only to write."
            } else {
                "Repair the medium and restart the node, or export the store and import it into another one."
            };
            let severity = if asked { Severity::Warning } else { Severity::Fault };
            add(
                "read-only",
                severity,
                format!("The store is read-only: {why}. Writes are refused, reads continue. {way_out}"),
            );
        }
        if let Some(why) = self.absence {
            let text = format!(
                "{why}: writes are lost when the node ends. Export the store, or mount its disk or restore the file, \
                 and restart the node."
            );
            add("store-absent", Severity::Fault, text);
        }
        for (worker, quiet) in self.quiet.iter().enumerate() {
            if self.phase == Phase::Serving && *quiet >= STUCK {
                let text = format!("Worker {worker} has stalled for {} s.", quiet.as_secs());
                add("worker-stuck", Severity::Fault, text);
            }
        }
        if self.damaged > 0 {
            let places = if self.damaged == 1 { "1 place".to_owned() } else { format!("{} places", self.damaged) };
            let text = format!(
                "Damage was found in {places} since the start. The log of the node names the objects; keyhole scrub \
                 and keyhole check list the damage."
            );
            add("damage", Severity::Fault, text);
        }
        if self.stats.is_some_and(|stats| stats.full) {
            let text = "The store is full: new data is refused. Delete objects, or increase the capacity.";
            add("full", Severity::Fault, text.to_owned());
        }
        if let (Some(behind_ms), Some(bucket)) = (self.clock.behind_ms, &self.clock.bucket) {
            let text = format!(
                "The clock is {} s behind the time of an object in the bucket {bucket}. Expiry is suspended there. Set \
                 the clock; if it is right, delete the objects stored while it was ahead.",
                behind_ms / 1000
            );
            add("clock-behind", Severity::Warning, text);
        }
        if let Some(refused_ms) = self.clock.lock_refused_ms {
            let text = format!(
                "The clock leapt {} s ahead. Retention of object lock does not follow it. Set the clock; if it is \
                 right, run keyhole clock accept.",
                refused_ms / 1000
            );
            add("lock-clock", Severity::Warning, text);
        }
        for RemoteStatus { remote, failure, owed, exceptions, .. } in self.remotes {
            if let Some(why) = failure {
                let text = format!(
                    "The remote {remote} does not accept objects: {why}. {owed} are owed. Shipping is tried again; the \
                     node serves meanwhile."
                );
                add("remote-failing", Severity::Warning, text);
            }
            if !exceptions.is_empty() {
                // Conditions need no credential, so they name no objects.
                let objects = if exceptions.len() == 1 {
                    "1 object is".to_owned()
                } else {
                    format!("{} objects are", exceptions.len())
                };
                let text = format!(
                    "{objects} not in the remote {remote}, because it refuses them or they are damaged. keyhole remote \
                     status lists them."
                );
                add("remote-incomplete", Severity::Warning, text);
            }
        }
        all
    }

    /// Describes the failed write that poisoned the store.
    fn poisoned(&self) -> String {
        let cause = self.stats.and_then(|stats| stats.failed_write.as_ref());
        let cause =
            cause.map_or_else(|| "A write or a sync has failed".to_owned(), |failed| capital(&failed.to_string()));
        format!(
            "{cause}. The store refuses writes until the node is restarted; reads that verify continue. Check the \
             log and the disk."
        )
    }
}

/// Capitalises the first letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use keyhole_remote::Exception;

    use super::*;

    #[test]
    fn incomplete_remote_is_reported_without_object_keys() {
        let clock = Clock::default();
        let text = |text: &str| text.to_owned();
        let exception =
            |key: &str| Exception { bucket: text("b"), key: text(key), version: text("null"), why: text(key) };
        let conditions = |remotes: &[RemoteStatus]| {
            let phase = Phase::Serving;
            let inputs =
                ConditionInputs { phase, stats: None, quiet: &[], damaged: 0, clock: &clock, absence: None, remotes };
            inputs.conditions().into_iter().map(|condition| condition.text).collect::<Vec<_>>()
        };
        for (keys, begin) in [(&["private"][..], "1 object is"), (&["private", "private-2"], "2 objects are")] {
            let exceptions = keys.iter().map(|key| exception(key)).collect();
            let found = conditions(&[RemoteStatus { remote: text("vault"), exceptions, ..RemoteStatus::default() }]);
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with(begin) && !found[0].contains("private"), "{found:?}");
        }
        assert!(conditions(&[RemoteStatus::default()]).is_empty());
    }

    #[test]
    fn stalled_worker_is_reported_while_serving() {
        let clock = Clock::default();
        let conditions = |phase, quiet: &[Duration]| {
            let found =
                ConditionInputs { phase, stats: None, quiet, damaged: 0, clock: &clock, absence: None, remotes: &[] };
            found.conditions().into_iter().map(|condition| condition.text).collect::<Vec<_>>()
        };
        let ms = Duration::from_millis;
        assert!(conditions(Phase::Serving, &[ms(4999), ms(0)]).is_empty());
        assert_eq!(conditions(Phase::Serving, &[ms(0), ms(5000)]), ["Worker 1 has stalled for 5 s."]);
        assert_eq!(conditions(Phase::Draining, &[ms(5000)]).len(), 1, "of the end alone");
    }
}
