//! The agent's process: sockets, signals, clocks, and the loop around [`Agent`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use crate::agent::Agent;
use crate::applied::Watch;
use crate::config::{self, RunDir, VswitchdRun};
use crate::control::{self, Call, Reply, Request};
use crate::dataplane::{Gate, Kernel, KernelLeases, Options};
use crate::event::{Effect, Event, HostFacts, Poll, Probe};
use crate::offloads::Offloads;
use crate::ovsdb::{Endpoint, OvsdbEvent};
use crate::real_time::real_time;
use crate::unixctl::{FdbStats, Unixctl, UnixctlError};
use crate::{frame_text, links, lock, openflow, ovsdb, status};

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

/// Between two questions to an ovs-vswitchd that did not answer.
const RETRY: Duration = Duration::from_millis(200);
/// Within this time from when the database is in reach, ovs-vswitchd has connected to it: it tries every 8 s at the least
/// (OVS `lib/reconnect.h`, `RECONNECT_DEFAULT_MAX_BACKOFF`), and then reads it.
const CONNECTS: Duration = Duration::from_secs(10);

/// Runs the agent until it is told to end, then gives all ports back.
///
/// # Errors
/// It could not start: another agent runs, privileges or kernel features are missing. Open vSwitch has all frames.
pub async fn run(config: Config) -> Result<()> {
    check_kernel()?;
    let _lock = lock::take(&config.run_dir)?;
    Offloads::new(&config.run_dir).restore().await;
    let mut kernel = Kernel::load(config.options)?;
    if config.options.log {
        forward_log(&mut kernel)?;
    }
    let (our_program, tcx) = (kernel.program_id(), kernel.has_tc());
    let socket = config.run_dir.socket();
    let listener = control::bind(&socket)
        .with_context(|| format!("cannot bind the control socket {}", socket.display()))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    let (events, mut inbox) = mpsc::channel(256);
    let (calls, mut requests) = mpsc::channel(16);
    tokio::spawn(control::serve(listener, calls));
    let gate = kernel.gate();
    follow_database(config.ovsdb.clone(), events.clone(), gate.clone())?;
    tokio::spawn(links::watch(events.clone(), Event::Links));
    let mut agent = Agent::new(kernel, config.bridges.clone(), our_program, tcx);
    let mut outside = Outside::new(&config, events);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    info!(version = env!("CARGO_PKG_VERSION"), database = %config.ovsdb, "started");
    notify(&[NotifyState::Ready]);

    let mut detached = None;
    loop {
        // In no particular order: a flood of events must keep neither the lease from being renewed nor a signal out.
        let event = tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => event,
                None => bail!("all sources of events have ended"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {
                notify(&[NotifyState::Watchdog]);
                Event::Tick(outside.host_facts())
            }
            Some(call) = requests.recv() => {
                let Call { request, reply } = call;
                if request == Request::Detach {
                    detached = Some(reply);
                    break;
                }
                let answer = answer(&mut agent, &request);
                if let (Request::Trace { compare: true, .. }, Reply::Ok(report)) = (&request, &answer) {
                    tokio::spawn(compare(outside.unixctl.clone(), report.clone(), reply));
                } else {
                    // A client that did not wait is no concern of ours.
                    let _ = reply.send(answer);
                }
                continue;
            }
        };
        let of_database = matches!(event, Event::Ovsdb(_));
        // A new ovs-vswitchd has its pid file before it writes to the database.
        let run = of_database.then(|| Event::Vswitchd(VswitchdRun::look(&config.ovs_rundir)));
        if of_database {
            gate.acknowledge();
        }
        if matches!(event, Event::Ovsdb(OvsdbEvent::Connected)) {
            outside.database_back = Instant::now();
        }
        for effect in run.into_iter().chain([event]).flat_map(|event| agent.handle(event, now_s())) {
            outside.carry_out(effect);
        }
    }

    notify(&[NotifyState::Stopping]);
    let (failures, effects) = agent.give_back();
    let offloads = outside.offloads.lock().await;
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
    Ok(())
}

/// Reads the database in a thread of its own, which is to be woken before ovs-vswitchd has finished with a change.
fn follow_database(
    endpoint: Endpoint,
    events: mpsc::Sender<Event>,
    gate: Arc<Gate<KernelLeases>>,
) -> Result<()> {
    let watch = RefCell::new(Watch::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("ovsdb".to_owned());
    thread.spawn(move || {
        // It works for microseconds at a time, but then before everything else. Without the privilege it has to queue.
        if let Err(error) = real_time() {
            warn!(?error, "no real-time priority (CAP_SYS_NICE) for the thread that reads the database");
        }
        runtime.block_on(ovsdb::run(endpoint, events, move |event| {
            if let Err(error) = gate.trip(&watch.borrow_mut().affected(&event)) {
                warn!(%error, "a bridge was not suspended at once");
            }
            Event::Ovsdb(event)
        }));
    })?;
    Ok(())
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

fn answer(agent: &mut Agent<Kernel>, request: &Request) -> Reply {
    fn document<T: serde::Serialize, E: ToString>(result: Result<T, E>) -> Reply {
        let value = result.map_err(|error| error.to_string());
        let value = value.and_then(|value| serde_json::to_value(value).map_err(|error| error.to_string()));
        value.map_or_else(Reply::Error, Reply::Ok)
    }
    match request {
        Request::Status => document::<_, String>(Ok(agent.status())),
        Request::FdbShow => document(agent.fdb_stations()),
        Request::FdbFlush { bridge, port, vlan } => {
            document(agent.flush_stations(bridge.as_deref(), port.as_deref(), *vlan))
        }
        Request::Stats => document(agent.stats()),
        Request::Trace { port, frame, .. } => {
            document(frame_text::parse(frame).and_then(|frame| agent.trace(port, &frame)))
        }
        Request::Detach => Reply::Error("the agent is ending".to_owned()),
    }
}

/// Adds what Open vSwitch would do with the same frame. It is only asked: nothing is sent or learned.
async fn compare(unixctl: Unixctl, report: serde_json::Value, reply: oneshot::Sender<Reply>) {
    let result = async {
        let mut report: status::TraceReport =
            serde_json::from_value(report).map_err(|error| error.to_string())?;
        let ofport = report.ofport.ok_or("Open vSwitch has not opened the port")?;
        let in_port = format!("in_port={ofport}");
        let answer = unixctl.call("ofproto/trace", &[&report.bridge, &in_port, &report.frame]).await;
        report.ovs = Some(answer.map_err(|error| error.to_string())?);
        serde_json::to_value(report).map_err(|error| error.to_string())
    };
    // As above.
    let _ = reply.send(result.await.map_or_else(Reply::Error, Reply::Ok));
}

fn check_kernel() -> Result<()> {
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

fn forward_log(kernel: &mut Kernel) -> Result<()> {
    let mut logger = kernel.logger().context("cannot read the log of the BPF programs")?;
    tokio::spawn(async move {
        loop {
            logger.flush();
            sleep(Duration::from_millis(100)).await;
        }
    });
    Ok(())
}

/// Where effects are carried out: each in a task of its own that ends in an event.
struct Outside {
    ovsdb: Endpoint,
    /// When the database was last out of reach and is in reach again.
    database_back: Instant,
    ovs_rundir: PathBuf,
    unixctl: Unixctl,
    events: mpsc::Sender<Event>,
    followed: BTreeMap<String, AbortHandle>,
    /// Offloads are switched one at a time, in the order in which that was asked.
    offloads: Arc<Mutex<Offloads>>,
}

impl Outside {
    fn new(config: &Config, events: mpsc::Sender<Event>) -> Self {
        Self {
            ovsdb: config.ovsdb.clone(),
            database_back: Instant::now(),
            ovs_rundir: config.ovs_rundir.clone(),
            unixctl: Unixctl::new(&config.ovs_rundir),
            events,
            followed: BTreeMap::new(),
            offloads: Arc::new(Mutex::new(Offloads::new(&config.run_dir))),
        }
    }

    fn host_facts(&self) -> HostFacts {
        HostFacts {
            vswitchd: VswitchdRun::look(&self.ovs_rundir),
            vlan_devices_possible: config::vlan_devices_possible(),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let (unixctl, events) = (self.unixctl.clone(), self.events.clone());
        // The agent ends before its events are all read; a task that cannot send one has nobody to tell.
        match effect {
            Effect::Probe { bridge, question, next_turn } => {
                tokio::spawn(async move {
                    let answer = probe(&unixctl, &bridge, next_turn).await.map_err(|error| error.to_string());
                    let _ = events.send(Event::Probed { bridge, question, answer }).await;
                });
            }
            Effect::Poll { bridge, question, known, flows } => {
                tokio::spawn(async move {
                    let answer =
                        poll(&unixctl, &bridge, known, flows).await.map_err(|error| error.to_string());
                    let _ = events.send(Event::Polled { bridge, question, answer }).await;
                });
            }
            Effect::Settle { token, connecting } => {
                let (database, ovs_rundir) = (self.ovsdb.clone(), self.ovs_rundir.clone());
                let start = if connecting { self.database_back + CONNECTS } else { Instant::now() };
                tokio::spawn(async move {
                    sleep_until(start).await;
                    settle(&database, &ovs_rundir).await;
                    let _ = events.send(Event::Settled(token)).await;
                });
            }
            Effect::Follow(bridges) => self.follow(bridges),
            Effect::RxVlanOffload { ifindex, device, on } => {
                let offloads = self.offloads.clone();
                tokio::spawn(async move {
                    let offloads = offloads.lock().await;
                    if let Some(cause) = offloads.switch(ifindex, &device, on).await {
                        let _ = events.send(Event::OffloadRefused { ifindex, cause }).await;
                    }
                });
            }
        }
    }

    fn follow(&mut self, bridges: Vec<String>) {
        self.followed.retain(|bridge, task| {
            let stays = bridges.contains(bridge);
            if !stays {
                task.abort();
            }
            stays
        });
        for bridge in bridges {
            let (rundir, events) = (self.ovs_rundir.clone(), self.events.clone());
            self.followed.entry(bridge).or_insert_with_key(|bridge| {
                tokio::spawn(openflow::run(rundir, bridge.clone(), events, Event::OpenFlow)).abort_handle()
            });
        }
    }
}

/// Returns when ovs-vswitchd has applied whatever it is woken for by what the database has sent us.
async fn settle(database: &Endpoint, ovs_rundir: &Path) {
    ovsdb::wait_round(database).await;
    // ovs-vswitchd has been sent it too now. In each turn of its main loop it reads what the database sent, applies it, takes
    // new connections to its command socket, and answers (OVS `vswitchd/ovs-vswitchd.c`; `lib/unixctl.c`,
    // `unixctl_server_run`). The first answer may be of a turn that was under way; a connection made after it is taken in a
    // later one.
    for _ in 0..2 {
        while Unixctl::new(ovs_rundir).version().await.is_err() {
            sleep(RETRY).await;
        }
    }
}

async fn probe(unixctl: &Unixctl, bridge: &str, next_turn: bool) -> Result<Probe, UnixctlError> {
    if next_turn {
        // It answers this one in some turn of its main loop, and what is asked after that in a later one.
        unixctl.version().await?;
    }
    let (version, flow_table, stations) = unixctl.state(bridge).await?;
    Ok(Probe { version, flow_table, stations })
}

async fn poll(
    unixctl: &Unixctl,
    bridge: &str,
    known: Option<FdbStats>,
    flows: bool,
) -> Result<Poll, UnixctlError> {
    let flow_table = if flows { Some(unixctl.flow_table(bridge).await?) } else { None };
    let stats = unixctl.fdb_stats(bridge).await?;
    let stations = if known == Some(stats) { None } else { Some(unixctl.fdb_show(bridge).await?) };
    Ok(Poll { flow_table, stats, stations })
}
