//! What the agent needs before its loop: a kernel that will do, and the parts that send it events.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::warn;
use trunkline_core::abi;

use super::now_s;
use super::tasks::{Tasks, supervised};
use crate::applied::{DatabaseEvent, Watch};
use crate::dataplane::{Gate, Kernel, KernelLeases};
use crate::event::Event;
use crate::fault;
use crate::ovsdb::{self, Endpoint, Observer, OvsdbEvent};
use crate::real_time::real_time;

/// States of the database that may wait for the agent. A thread that has to wait for the agent does not read on, and the
/// leases run out.
const BACKLOG: usize = 1024;

/// Refuses kernels on which the programs cannot work.
///
/// # Errors
/// Says what is lacking.
pub(super) fn check_kernel() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 15) {
        bail!(
            "Linux {release} is too old: 5.15 is the oldest with all that is needed (XDP links, a coarse clock for \
             programs, forwarding between veth, tap and NIC)"
        );
    }
    Ok(())
}

/// Has what the programs log written to the agent's log.
///
/// # Errors
/// The log cannot be read.
pub(super) fn forward_log(kernel: &mut Kernel, tasks: &mut Tasks) -> Result<()> {
    let mut logger = kernel.logger().context("cannot read the log of the BPF programs")?;
    tasks.spawn("forward the log", async move {
        loop {
            logger.flush();
            sleep(Duration::from_millis(100)).await;
        }
    });
    Ok(())
}

/// Reads the database in a thread of its own, which is to be woken before ovs-vswitchd has finished with a change. The
/// channel is closed when the thread has ended.
///
/// # Errors
/// There can be no such thread.
pub(super) fn follow_database(
    endpoint: Endpoint,
    gate: Arc<Gate<KernelLeases>>,
) -> Result<mpsc::Receiver<DatabaseEvent>> {
    let (events, received) = mpsc::channel(BACKLOG);
    gate.follow_database();
    let gatekeeper = Gatekeeper { gate, watch: RefCell::new(Watch::default()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("ovsdb".to_owned());
    thread.spawn(move || {
        // It works for microseconds at a time, but then before everything else. Without the privilege it has to queue.
        if let Err(error) = real_time() {
            warn!(?error, "no real-time priority (CAP_SYS_NICE) for the thread that reads the database");
        }
        runtime.block_on(supervised(DATABASE, ovsdb::run(endpoint, events, gatekeeper)));
    })?;
    Ok(received)
}

/// Sends the agent what programs ask to be shown, all that there is at a time, from a thread that sleeps on their ring buffer.
/// The future ends when the thread does.
///
/// # Errors
/// There can be no such thread.
pub(super) fn forward_shows(
    mut shows: RingBuf<MapData>,
    events: mpsc::Sender<Event>,
) -> Result<impl Future<Output = ()>> {
    let (alive, ended) = oneshot::channel::<Infallible>();
    std::thread::Builder::new().name("shows".to_owned()).spawn(move || {
        let _alive = alive;
        loop {
            match poll(&mut [PollFd::new(&shows, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return warn!(%error, "the programs' ring buffer cannot be waited for"),
            }
            fault::check("shows");
            let mut asked = Vec::new();
            while let Some(item) = shows.next() {
                asked.extend(bytemuck::try_pod_read_unaligned::<abi::Show>(&item).ok());
            }
            if !asked.is_empty() && events.blocking_send(Event::Show(asked)).is_err() {
                return;
            }
        }
    })?;
    Ok(async move { drop(ended.await) })
}

/// Suspends the bridges that a change is about as soon as it is read, and keeps leases from outliving what is known.
struct Gatekeeper {
    gate: Arc<Gate<KernelLeases>>,
    watch: RefCell<Watch>,
}

impl Observer for Gatekeeper {
    type Event = DatabaseEvent;

    fn passes(&self, event: OvsdbEvent) -> DatabaseEvent {
        let event = self.watch.borrow_mut().pass(event);
        if let Err(error) = self.gate.trip(&event.affected()) {
            warn!(%error, "a bridge was not suspended at once");
        }
        event
    }

    fn has_read(&self, as_of: Instant) {
        // Both clocks are the monotonic one; seconds are rounded to the safe side.
        let ago_s = u32::try_from(as_of.elapsed().as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.gate.database_read(now_s().saturating_sub(ago_s));
    }
}

/// Name of the part that reads the database.
pub(super) const DATABASE: &str = "read the database";
