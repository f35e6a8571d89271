//! No panic leaves the plugin.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic becomes an error with its message and location.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| on_panic(info, &previous)));
    });
    DEPTH.set(DEPTH.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| {
        forget(payload);
        LAST.take().unwrap_or_else(|| "panicked".to_owned())
    })
}

/// Inside a guard the message is kept for the caller. Elsewhere (a thread that the plugin started) it goes to the log.
fn on_panic(info: &PanicHookInfo<'_>, previous: &dyn Fn(&PanicHookInfo<'_>)) {
    let text = message(info);
    if DEPTH.get() > 0 {
        LAST.set(Some(text));
    } else {
        tracing::error!("a thread of the plugin panicked: {text}");
        previous(info);
    }
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("panicked with a payload that is no text");
    match info.location() {
        Some(location) => format!("{text} (at {location})"),
        None => text.to_owned(),
    }
}

/// Drops the payload, which may panic in turn; then its payload is leaked, since dropping it could go on for ever.
fn forget(payload: Box<dyn Any + Send>) {
    DEPTH.set(DEPTH.get() + 1);
    let kept = LAST.take();
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    LAST.set(kept);
    DEPTH.set(DEPTH.get() - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_place() {
        let error = guarded(|| panic!("no {}", "way")).unwrap_err();
        assert!(error.starts_with("no way (at ") && error.contains("guard.rs:"), "{error}");
        assert_eq!(guarded(|| 1), Ok(1));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let error = guarded(|| panic::panic_any(Bomb)).unwrap_err();
        assert!(error.contains("no text"), "{error}");
    }
}
