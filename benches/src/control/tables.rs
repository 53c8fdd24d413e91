//! The agent's tables, looked at from outside.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::sync::Barrier;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use trunkline_core::abi;

const PORT: usize = size_of::<abi::Port>();
const BRIDGE: usize = size_of::<abi::Bridge>();
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(50);

pub(super) struct Tables {
    ports: Array<MapData, [u8; PORT]>,
    bridges: Array<MapData, [u8; BRIDGE]>,
}

/// When what was seen for the first time.
pub(super) struct Sight {
    /// The bridge does not switch; unless the thread that looks came too late for it.
    pub(super) suspended: Option<Instant>,
    /// The port has its new VLAN.
    pub(super) changed: Instant,
    /// The bridge switches again.
    pub(super) active: Instant,
}

impl Tables {
    /// The maps that a process has open.
    pub(super) fn of(process: u32) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for file in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
            let info = std::fs::read_to_string(file?.path()).unwrap_or_default();
            let id = info.lines().find_map(|line| line.strip_prefix("map_id:"));
            ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
        }
        let named = |name: &str| -> Result<MapData> {
            let data = ids.iter().filter_map(|id| MapData::from_id(*id).ok());
            let mut data = data.filter(|data| data.info().is_ok_and(|info| info.name_as_str() == Some(name)));
            data.next().with_context(|| format!("process {process} has no map {name}"))
        };
        Ok(Self {
            ports: Array::try_from(Map::Array(named("PORTS")?))?,
            bridges: Array::try_from(Map::Array(named("BRIDGES")?))?,
        })
    }

    /// The port whose frames without a tag are in this VLAN.
    pub(super) fn place_of(&self, pvid: u16) -> Option<u32> {
        (0..abi::MAX_PORTS).find(|place| self.port(*place).is_ok_and(|(now, _)| now == pvid))
    }

    /// Waits until the port has this VLAN and its bridge switches. Says when it begins to look.
    pub(super) fn watch(&self, place: u32, pvid: u16, deadline: Instant, begun: &Barrier) -> Result<Sight> {
        let (mut suspended, mut changed) = (None, None);
        // Looking is little work, but must not queue behind that of others. Without the privilege it has to.
        let _ = set_thread_priority_and_policy(
            thread_native_id(),
            ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 }),
            ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
        );
        begun.wait();
        loop {
            let (now, bridge) = self.port(place)?;
            let switches = self.lease(bridge)? != 0;
            let instant = Instant::now();
            if !switches {
                suspended.get_or_insert(instant);
            }
            if now == pvid {
                changed.get_or_insert(instant);
            }
            // A bridge does not switch while its rules change, so this is after the change.
            if let (Some(changed), true) = (changed, switches) {
                return Ok(Sight { suspended, changed, active: instant });
            }
            ensure!(instant < deadline, "the change does not show: pvid {now}, switching {switches}");
            sleep(PAUSE);
        }
    }

    /// A port's VLAN, and its bridge.
    fn port(&self, place: u32) -> Result<(u16, u16)> {
        let port = self.ports.get(&place, 0)?;
        let number = |offset: usize| u16::from_ne_bytes([port[offset], port[offset + 1]]);
        Ok((number(offset_of!(abi::Port, pvid)), number(offset_of!(abi::Port, bridge))))
    }

    fn lease(&self, bridge: u16) -> Result<u32> {
        let bridge = self.bridges.get(&u32::from(bridge), 0)?;
        let at = offset_of!(abi::Bridge, lease_s);
        Ok(u32::from_ne_bytes([bridge[at], bridge[at + 1], bridge[at + 2], bridge[at + 3]]))
    }
}
