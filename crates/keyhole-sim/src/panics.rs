//! Messages of panics, for the report of the life that they ended.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether panics of this thread belong to a life.
    static KEPT: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// Records the panic messages of this thread instead of printing them.
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

/// Lets panics of this thread be printed again.
pub(crate) fn release() {
    KEPT.with(|kept| *kept.borrow_mut() = false);
}

/// Returns the message of the last panic of this thread.
pub(crate) fn taken() -> String {
    LAST.with(|last| last.borrow_mut().take()).unwrap_or_else(|| "a panic without a message".to_owned())
}
