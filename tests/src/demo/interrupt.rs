//! SIGINT and SIGTERM as a flag, looked at between steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::{MOMENT, Stop};

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Whether to stop.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Takes both signals from now on.
    pub(super) fn listen() -> Self {
        let flag = Arc::new(AtomicU8::new(0));
        let (heard, (ready, is_ready)) = (flag.clone(), std::sync::mpsc::channel());
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime for signals");
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt()).expect("listening for SIGINT");
                let mut terminate = signal(SignalKind::terminate()).expect("listening for SIGTERM");
                ready.send(()).expect("the main thread waits");
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => heard.store(SIGINT, Ordering::Relaxed),
                        _ = terminate.recv() => heard.store(SIGTERM, Ordering::Relaxed),
                    }
                }
            });
        });
        is_ready.recv().expect("the thread for signals starts");
        Self(flag)
    }

    /// The signal that came, if one has.
    pub(super) fn signal(&self) -> Option<u8> {
        Some(self.0.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// The same, when the signal may have come this moment.
    pub(super) fn after_a_moment(&self) -> Option<u8> {
        if self.signal().is_none() {
            thread::sleep(MOMENT);
        }
        self.signal()
    }

    /// An error once a signal has come.
    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.signal().is_some() { Err(Stop::Interrupted) } else { Ok(()) }
    }
}
