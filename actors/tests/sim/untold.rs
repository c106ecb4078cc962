//! Panics: those that a port makes as it is told are silent, all others are the simulation's failure.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;

thread_local! {
    /// While a simulation runs on this thread: the first panic that nobody told.
    static HEARD: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Listens on this thread until it is dropped.
pub(crate) struct Listening;

/// Begins to listen on this thread.
pub(crate) fn listen() -> Listening {
    HOOK.call_once(|| {
        let otherwise = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !heard(panic) {
                otherwise(panic);
            }
        }));
    });
    HEARD.with_borrow_mut(|heard| *heard = Some(None));
    Listening
}

impl Listening {
    /// The first panic that no port was told to make.
    pub(crate) fn first_untold(self) -> Option<String> {
        HEARD.with_borrow_mut(|heard| heard.as_mut().and_then(Option::take))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        HEARD.with_borrow_mut(|heard| *heard = None);
    }
}

fn heard(panic: &PanicHookInfo<'_>) -> bool {
    let payload = panic.payload();
    let what = payload.downcast_ref::<String>().map(String::as_str);
    let what = what.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("something");
    HEARD.with_borrow_mut(|heard| match heard {
        None => false,
        Some(first) => {
            if !what.ends_with("as told") {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                first.get_or_insert(format!("{what} at {place}"));
            }
            true
        }
    })
}
