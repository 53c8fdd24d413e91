//! Where effects are carried out: each in a task of its own that ends in an event.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::Config;
use super::tasks::Tasks;
use crate::config::{self, VswitchdRun};
use crate::event::{Effect, Event, HostFacts, Poll, Probe};
use crate::fault;
use crate::offloads::Offloads;
use crate::openflow::{self, Shower};
use crate::ovsdb::{self, Endpoint};
use crate::unixctl::{FdbStats, Unixctl, UnixctlError};

/// Between two questions to an ovs-vswitchd that did not answer.
const RETRY: Duration = Duration::from_millis(200);
/// Within this time from when the database is in reach, ovs-vswitchd has connected to it: it tries every 8 s at the least
/// (OVS `lib/reconnect.h`, `RECONNECT_DEFAULT_MAX_BACKOFF`), and then reads it.
const CONNECTS: Duration = Duration::from_secs(10);

/// The effects executor.
pub(super) struct Executor {
    ovsdb: Endpoint,
    /// When the database was last out of reach and is in reach again.
    pub(super) database_back: Instant,
    ovs_rundir: PathBuf,
    pub(super) unixctl: Unixctl,
    shower: Shower,
    events: mpsc::Sender<Event>,
    followed: BTreeMap<String, AbortHandle>,
    /// Offloads are switched one at a time, in the order in which that was asked.
    pub(super) offloads: Arc<Mutex<Offloads>>,
}

impl Executor {
    pub(super) fn new(config: &Config, events: mpsc::Sender<Event>) -> Self {
        Self {
            ovsdb: config.ovsdb.clone(),
            database_back: Instant::now(),
            ovs_rundir: config.ovs_rundir.clone(),
            unixctl: Unixctl::new(&config.ovs_rundir),
            shower: Shower::new(config.ovs_rundir.clone()),
            events,
            followed: BTreeMap::new(),
            offloads: Arc::new(Mutex::new(Offloads::new(&config.run_dir))),
        }
    }

    pub(super) fn host_facts(&self) -> HostFacts {
        HostFacts {
            vswitchd: VswitchdRun::look(&self.ovs_rundir),
            vlan_devices_possible: config::vlan_devices_possible(),
        }
    }

    pub(super) fn execute(&mut self, effect: Effect, tasks: &mut Tasks) {
        let (unixctl, events) = (self.unixctl.clone(), self.events.clone());
        // The agent ends before its events are all read; a task that cannot send one has nobody to tell.
        match effect {
            Effect::Probe { bridge, question, next_turn } => {
                let rundir = self.ovs_rundir.clone();
                tokio::spawn(async move {
                    fault::check("probe");
                    let answer = if next_turn {
                        probe_in_next_turn(&unixctl, &rundir, &bridge).await
                    } else {
                        probe(&unixctl, &bridge).await
                    };
                    let answer = answer.map_err(|error| error.to_string());
                    let _ = events.send(Event::Probed { bridge, question, answer }).await;
                });
            }
            Effect::Poll { bridge, question, known, flows } => {
                tokio::spawn(async move {
                    fault::check("poll");
                    let answer =
                        poll(&unixctl, &bridge, known, flows).await.map_err(|error| error.to_string());
                    let _ = events.send(Event::Polled { bridge, question, answer }).await;
                });
            }
            Effect::Show { bridge, question, frames } => {
                let shower = self.shower.clone();
                tokio::spawn(async move {
                    fault::check("show");
                    let answer = shower.show(&bridge, &frames).await;
                    let _ = events.send(Event::Shown { bridge, question, answer }).await;
                });
            }
            Effect::Barrier { update, connecting } => {
                let (database, ovs_rundir) = (self.ovsdb.clone(), self.ovs_rundir.clone());
                let start = if connecting { self.database_back + CONNECTS } else { Instant::now() };
                tokio::spawn(async move {
                    fault::check("barrier");
                    sleep_until(start).await;
                    barrier(&database, &ovs_rundir).await;
                    let _ = events.send(Event::BarrierPassed(update)).await;
                });
            }
            Effect::Follow(bridges) => self.follow(bridges, tasks),
            Effect::RxVlanOffload { ifindex, device, on } => {
                let offloads = self.offloads.clone();
                tokio::spawn(async move {
                    fault::check("offload");
                    let offloads = offloads.lock().await;
                    if let Some(cause) = offloads.switch(ifindex, &device, on).await {
                        let _ = events.send(Event::OffloadRefused { ifindex, cause }).await;
                    }
                });
            }
        }
    }

    fn follow(&mut self, bridges: Vec<String>, tasks: &mut Tasks) {
        self.followed.retain(|bridge, task| {
            let stays = bridges.contains(bridge);
            if !stays {
                task.abort();
            }
            stays
        });
        let (shower, stay) = (self.shower.clone(), bridges.clone());
        tokio::spawn(async move { shower.keep(&stay).await });
        for bridge in bridges {
            let (rundir, events) = (self.ovs_rundir.clone(), self.events.clone());
            self.followed.entry(bridge).or_insert_with_key(|bridge| {
                let follow = openflow::run(rundir, bridge.clone(), events, Event::OpenFlow);
                tasks.spawn("follow a bridge's flows", follow)
            });
        }
    }
}

/// Returns when ovs-vswitchd has applied whatever it is woken for by what the database has sent us.
async fn barrier(database: &Endpoint, ovs_rundir: &Path) {
    ovsdb::barrier(database).await;
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

/// Asks once ovs-vswitchd has been through its main loop. It answers the first question in some turn, in which it has taken
/// new connections already; one that is made after the answer is taken in a later turn.
async fn probe_in_next_turn(unixctl: &Unixctl, rundir: &Path, bridge: &str) -> Result<Probe, UnixctlError> {
    unixctl.version().await?;
    probe(&Unixctl::new(rundir), bridge).await
}

async fn probe(unixctl: &Unixctl, bridge: &str) -> Result<Probe, UnixctlError> {
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
