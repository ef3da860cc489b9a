//! Dying at a chosen step, for the tests of what a killed runtime leaves behind. Only in builds with debug assertions;
//! in others it is nothing.
//!
//! Every result that is given the name of its step passes here, and so do the few steps without one. The environment
//! says which process dies after how many: `_RUNG_KILL_AFTER=parent:12` or `child:3`.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    const VARIABLE: &str = "_RUNG_KILL_AFTER";

    static PASSED: AtomicU32 = AtomicU32::new(0);
    static IN_CHILD: AtomicBool = AtomicBool::new(false);

    /// Whether it is the child that dies, and after which step.
    fn order() -> Option<(bool, u32)> {
        static ORDER: OnceLock<Option<(bool, u32)>> = OnceLock::new();
        *ORDER.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let (who, number) = text.split_once(':')?;
            Some((who == "child", number.parse().ok()?))
        })
    }

    pub(crate) fn step_done() {
        let Some((child, number)) = order() else { return };
        if child == IN_CHILD.load(Ordering::Relaxed) && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == number {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // The first process of a pid namespace is deaf to its own signals.
            std::process::exit(137);
        }
    }

    pub(crate) fn in_child() {
        IN_CHILD.store(true, Ordering::Relaxed);
        PASSED.store(0, Ordering::Relaxed);
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    pub(crate) fn step_done() {}
    pub(crate) fn in_child() {}
}

pub(crate) use armed::{in_child, step_done};
