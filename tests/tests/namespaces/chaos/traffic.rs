//! Ten stations that talk all the time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_core::{Mac, Tpid};
use trunkline_tests::{Frame, Vlan, Wire, frame_id, station, tag};

use super::judge::{Sent, World};
use super::{Dice, FORGOTTEN, VLANS};

/// The taps that can be used at the moment, and the rest that both threads use.
pub(super) struct Shared {
    wires: Mutex<BTreeMap<&'static str, Wire>>,
    world: Mutex<World>,
    pub(super) done: AtomicBool,
    /// As much as there can be, for moments that matter.
    pub(super) rush: AtomicBool,
}

impl Shared {
    pub(super) fn new(wires: BTreeMap<&'static str, Wire>, world: World) -> Self {
        let (done, rush) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { wires: Mutex::new(wires), world: Mutex::new(world), done, rush }
    }

    pub(super) fn wires(&self) -> MutexGuard<'_, BTreeMap<&'static str, Wire>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends and judges until it is told to end.
    pub(super) fn traffic(&self, mut dice: Dice) {
        let mut under_way: HashMap<u64, Sent> = HashMap::new();
        let mut order: VecDeque<(Instant, u64)> = VecDeque::new();
        while !self.done.load(Ordering::Relaxed) {
            let rush = self.rush.load(Ordering::Relaxed);
            let wires = self.wires();
            for _ in 0..if rush { 32 } else { 4 } {
                let Some((id, sent)) = self.send_one(&wires, &mut dice) else { continue };
                order.push_back((sent.after, id));
                under_way.insert(id, sent);
            }
            let mut world = self.world();
            for (port, wire) in &*wires {
                while let Some(copy) = wire.receive() {
                    if let Some(sent) = frame_id(&copy).and_then(|id| under_way.get_mut(&id)) {
                        world.judge(sent, port, copy);
                    }
                }
            }
            drop((world, wires));
            while let Some((_, id)) = order.front().filter(|(at, _)| at.elapsed() > FORGOTTEN) {
                under_way.remove(id);
                order.pop_front();
            }
            if !rush {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn send_one(&self, wires: &BTreeMap<&'static str, Wire>, dice: &mut Dice) -> Option<(u64, Sent)> {
        let mut world = self.world();
        let (source, port) = world.stations.pick(dice);
        let wire = wires.get(port)?;
        let destination = match dice.below(20) {
            0 => Mac::BROADCAST,
            1 => station(),
            _ => world.stations.pick_beside(port, dice).0,
        };
        let foreign = dice.below(30) == 0;
        let vid = match &world.history.rule(port)?.vlan {
            Vlan::Access(_) => foreign.then(|| dice.pick(&VLANS)),
            Vlan::Trunk(_) => (!foreign).then(|| dice.pick(&VLANS)),
            Vlan::NativeTagged(..) | Vlan::NativeUntagged(..) => {
                (dice.below(2) == 0).then(|| dice.pick(&VLANS))
            }
        };
        world.tally.sent += 1;
        drop(world);
        let frame = Frame::new(source, destination).tagged(vid.map(|vid| tag(Tpid::Dot1Q, 0, false, vid)));
        let (bytes, body, tag) = (frame.bytes(), frame.body(), vid);
        let before = Instant::now();
        wire.send(&bytes);
        let after = Instant::now();
        let mut world = self.world();
        let since = world.rules_since(before, after);
        let World { history, stations, .. } = &mut *world;
        stations.speaks(source, port, tag, history, (since, after));
        let arrived = BTreeSet::new();
        Some((frame.id(), Sent { port, destination, tag, bytes, body, before, after, arrived }))
    }
}
