//! The agent's process: sockets, signals, clocks, and the loop around [`Agent`].

mod answer;
mod effects;
mod start;
mod tasks;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use crate::agent::Agent;
use crate::applied::DatabaseEvent;
use crate::config::{RunDir, VswitchdRun};
use crate::control::{self, Call, Reply, Request};
use crate::dataplane::{Kernel, Options};
use crate::event::{Effect, Event};
use crate::offloads::Offloads;
use crate::ovsdb::Endpoint;
use crate::{links, lock};

use answer::{answer, compare};
use effects::Executor;
use tasks::Tasks;

/// What the agent is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database.
    pub ovsdb: Endpoint,
    /// Open vSwitch's run directory.
    pub ovs_rundir: PathBuf,
    /// Our own.
    pub run_dir: RunDir,
    /// The bridges to accelerate; none for all.
    pub bridges: Vec<String>,
    /// For the programs.
    pub options: Options,
}

/// Runs the agent until it is told to end, then gives all ports back.
///
/// # Errors
/// It could not start: another agent runs, privileges or kernel features are missing. Or a part of it has ended that never
/// should. Open vSwitch has all frames.
pub async fn run(config: Config) -> Result<()> {
    tasks::abort_on_panic();
    start::check_kernel()?;
    let _lock = lock::take(&config.run_dir)?;
    Offloads::new(&config.run_dir).restore().await;
    let mut tasks = Tasks::default();
    let mut kernel = Kernel::load(config.options)?;
    if config.options.log {
        start::forward_log(&mut kernel, &mut tasks)?;
    }
    let (our_program, tcx) = (kernel.program_id(), kernel.has_tc());
    let socket = config.run_dir.socket();
    let listener = control::bind(&socket)
        .with_context(|| format!("cannot bind the control socket {}", socket.display()))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    let (events, mut inbox) = mpsc::channel(256);
    let (calls, mut requests) = mpsc::channel(16);
    tasks.spawn("serve the command line", control::serve(listener, calls));
    let gate = kernel.gate();
    let mut database = start::follow_database(config.ovsdb.clone(), gate.clone())?;
    tasks.spawn("follow the kernel's devices", links::watch(events.clone(), Event::Links));
    let shows = start::forward_shows(kernel.shows()?, events.clone())?;
    tasks.spawn("hear of stations to show", shows);
    let mut agent = Agent::new(kernel, config.bridges.clone(), our_program, tcx);
    let mut executor = Executor::new(&config, events);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    info!(version = env!("CARGO_PKG_VERSION"), database = %config.ovsdb, "started");
    notify(&[NotifyState::Ready]);

    let (mut detached, mut fault) = (None, None);
    loop {
        // In no particular order: a flood of events must keep neither the lease from being renewed nor a signal out.
        let event = tokio::select! {
            event = database.recv() => match event {
                Some(event) => {
                    gate.acknowledge();
                    Event::Database(event)
                }
                None => {
                    fault = Some(tasks::ended(start::DATABASE));
                    break;
                }
            },
            ended = tasks.ended() => {
                fault = Some(ended);
                break;
            }
            Some(event) = inbox.recv() => event,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {
                notify(&[NotifyState::Watchdog]);
                Event::Tick(executor.host_facts())
            }
            Some(call) = requests.recv() => {
                let Call { request, reply } = call;
                if request == Request::Detach {
                    detached = Some(reply);
                    break;
                }
                let answer = answer(&mut agent, &request);
                if let (Request::Trace { compare: true, .. }, Reply::Ok(report)) = (&request, &answer) {
                    tokio::spawn(compare(executor.unixctl.clone(), report.clone(), reply));
                } else {
                    // A client that did not wait is no concern of ours.
                    let _ = reply.send(answer);
                }
                continue;
            }
        };
        let of_database = matches!(event, Event::Database(_));
        // A new ovs-vswitchd has its pid file before it writes to the database.
        let run = of_database.then(|| Event::Vswitchd(VswitchdRun::look(&config.ovs_rundir)));
        if matches!(event, Event::Database(DatabaseEvent::Connected)) {
            executor.database_back = Instant::now();
        }
        for effect in run.into_iter().chain([event]).flat_map(|event| agent.handle(event, now_s())) {
            executor.execute(effect, &mut tasks);
        }
    }

    if let Some(fault) = &fault {
        error!("{fault:#}");
    }
    notify(&[NotifyState::Stopping]);
    let (failures, effects) = agent.give_back();
    let offloads = executor.offloads.lock().await;
    for effect in effects {
        if let Effect::RxVlanOffload { ifindex, device, on } = effect {
            offloads.switch(ifindex, &device, on).await;
        }
    }
    for failure in &failures {
        warn!(%failure, "giving the ports back");
    }
    // Best effort: a socket without a listener says the same.
    let _ = fs::remove_file(&socket);
    info!("all ports are Open vSwitch's again");
    if let Some(reply) = detached {
        let ports =
            serde_json::json!({ "failures": failures.iter().map(ToString::to_string).collect::<Vec<_>>() });
        let _ = reply.send(Reply::Ok(ports));
        // The answer is written by another task.
        sleep(Duration::from_millis(50)).await;
    }
    fault.map_or(Ok(()), Err)
}

/// Seconds of the clock that the programs read (`bpf_ktime_get_coarse_ns`).
pub fn now_s() -> u32 {
    u32::try_from(rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec)
        .unwrap_or(u32::MAX)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told");
    }
}
