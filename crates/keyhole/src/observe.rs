//! Observability: each completed request and each fault is raised once, in `keyhole-node`, and goes
//! from here to the metrics, the log and the audit log.

use std::sync::Arc;

use keyhole_node::{Exchange, Fault, Observer};

use crate::audit::Audit;
use crate::metrics::Counting;

/// The receivers of request events.
pub(crate) struct Observers {
    pub(crate) counting: Counting,
    pub(crate) audit: Option<Arc<Audit>>,
}

impl Observer for Observers {
    fn began(&self, operation: &'static str) {
        self.counting.began(operation);
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        self.counting.finished(exchange);
        log(exchange);
        if let Some(audit) = self.audit.as_ref().filter(|_| exchange.sse_c || exchange.is_unauthenticated) {
            audit.note(exchange);
        }
    }

    fn fault(&self, fault: &Fault<'_>) {
        self.counting.fault(fault);
        let Fault { request_id, resource, bucket, key, cause, .. } = fault;
        tracing::error!(request_id, resource, bucket, key, "{cause}");
    }

    fn wants_key_ids(&self) -> bool {
        self.audit.is_some()
    }
}

/// Logs a request at debug level, or as a warning if it failed by the node's own fault or for lack
/// of space.
fn log(exchange: &Exchange<'_>) {
    macro_rules! event {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                request_id = exchange.request_id,
                client = %exchange.client,
                method = exchange.method,
                resource = exchange.resource,
                operation = exchange.operation,
                access_key = exchange.access_key,
                status = exchange.status,
                error = exchange.error.map(|error| error.code()),
                received = exchange.received,
                sent = exchange.sent,
                took_us = u64::try_from(exchange.took.as_micros()).unwrap_or(u64::MAX),
                $message
            )
        };
    }
    match exchange.status {
        0 => event!(debug, "aborted"),
        500.. => event!(warn, "refused"),
        _ => event!(debug, "answered"),
    }
}
