//! The far end of a trunk: a wire with a station in each VLAN, as a switch or router would have beyond it.
//!
//! The kernel may lack 802.1Q devices, so the stations are a thread that reads and writes tagged frames. To see every
//! frame with its tag, to the octet, a one-line XDP program hands whatever arrives to a tap that the thread reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::answer::Station;
use super::link::{DEVICE, Link, connect};
use crate::Netns;
use crate::pass_program::TinyProgram;
use crate::wire::{Wire, wait_readable};

const TAP: &str = "wire";
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct FarEnd {
    program: Option<TinyProgram>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    netns: Netns,
}

impl FarEnd {
    /// Connects it to a new device `port` of the namespace `switch`.
    pub(super) fn connect(switch: &Netns, port: &str, stations: Vec<Station>) -> Self {
        let netns = Netns::new();
        connect(switch, port, &netns);
        let (inlet, outlet) = (netns.tap(TAP), netns.packet_socket(DEVICE));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = stop.clone();
            move || serve(&inlet, &outlet, &stations, &stop)
        });
        let mut far_end = Self { program: None, stop, thread: Some(thread), netns };
        far_end.listen();
        far_end
    }

    /// The namespace.
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Stations answer.
    pub(super) fn listen(&mut self) {
        let tap = Link::of(&self.netns, TAP).ifindex;
        self.put(TinyProgram::redirect(tap));
    }

    /// All frames vanish when they arrive, as on a wire that costs this machine nothing.
    pub(super) fn swallow(&mut self) {
        self.put(TinyProgram::drop_all());
    }

    fn put(&mut self, mut program: TinyProgram) {
        // A device has one program at a time.
        self.program = None;
        program.attach(&self.netns, DEVICE);
        self.program = Some(program);
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported already.
            let _ = thread.join();
        }
    }
}

fn serve(inlet: &Wire, outlet: &Wire, stations: &[Station], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        wait_readable([inlet].into_iter(), PATIENCE);
        while let Some(frame) = inlet.receive() {
            for answer in stations.iter().filter_map(|station| station.answer(&frame)) {
                outlet.send(&answer);
            }
        }
    }
}
