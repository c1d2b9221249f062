//! What a panic said, for the report of the life that it ended.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether panics of this thread are of a life.
    static KEPT: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// Keeps what panics of this thread say, instead of printing it.
pub(crate) fn keep() {
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !KEPT.with(|kept| *kept.borrow()) {
                return others(info);
            }
            let payload = info.payload();
            let said = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
            let what = said.unwrap_or("a panic without a message");
            let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
            LAST.with(|last| *last.borrow_mut() = Some(format!("{what}{}", place.unwrap_or_default())));
        }));
    });
    KEPT.with(|kept| *kept.borrow_mut() = true);
}

/// What the last panic of this thread said.
pub(crate) fn taken() -> String {
    LAST.with(|last| last.borrow_mut().take()).unwrap_or_else(|| "a panic that nobody kept".to_owned())
}
