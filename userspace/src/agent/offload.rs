//! rx-vlan-offload: off where it would hide tags from the program, on again where nothing is in its way any more.

use std::collections::BTreeSet;

use super::{Agent, RETRY_S};
use crate::dataplane::Dataplane;
use crate::event::Effect;

/// A device whose rx-vlan-offload we have switched off.
#[derive(Debug)]
pub(super) struct Offload {
    device: String,
    incarnation: u32,
    /// When that was asked, in seconds.
    asked_s: u32,
    /// The driver does not let it.
    pub(super) refused: Option<String>,
}

impl<D: Dataplane> Agent<D> {
    pub(super) fn on_offload_refused(&mut self, ifindex: u32, cause: String) -> bool {
        let Some(offload) = self.offloads.get_mut(&ifindex) else { return false };
        offload.refused = Some(cause);
        true
    }

    /// Has it switched off where a port waits for that, and on where its port is not ours (any more).
    pub(super) fn switch_offloads(&mut self) {
        let Self { offloads, links, effects, desired, now_s, full_refresh_s, .. } = self;
        // A new device with an old index has its own setting.
        offloads.retain(|ifindex, offload| {
            links.get(ifindex).is_none_or(|link| link.incarnation == offload.incarnation)
        });
        let mut kept: BTreeSet<u32> =
            self.dataplane.installed().ports.values().map(|port| port.ifindex).collect();
        for bridge in desired.iter().filter(|bridge| bridge.reason.is_none()) {
            let certain =
                self.watched.get(&bridge.name).is_some_and(|watched| watched.hold_reason().is_none());
            for port in &bridge.ports {
                let Some(link) = port.ifindex.and_then(|ifindex| links.get(&ifindex)) else { continue };
                let refused = offloads.get(&link.ifindex).is_some_and(|offload| offload.refused.is_some());
                if !port.wants_tags_in_frame && port.rules.is_err() && !refused {
                    continue;
                }
                kept.insert(link.ifindex);
                // Somebody may have switched it on again; that is not fought over every second.
                let due_s = match offloads.get(&link.ifindex) {
                    None => Some(*now_s),
                    Some(Offload { refused: Some(_), .. }) => None,
                    Some(Offload { asked_s, .. }) => Some(asked_s + RETRY_S),
                };
                let Some(due_s) = due_s.filter(|_| port.wants_tags_in_frame && certain) else { continue };
                if due_s > *now_s {
                    *full_refresh_s = due_s.min(*full_refresh_s);
                } else {
                    let (ifindex, device) = (link.ifindex, link.name.clone());
                    effects.push(Effect::RxVlanOffload { ifindex, device: device.clone(), on: false });
                    let incarnation = link.incarnation;
                    offloads.insert(ifindex, Offload { device, incarnation, asked_s: *now_s, refused: None });
                }
            }
        }
        offloads.retain(|ifindex, offload| {
            let stays = kept.contains(ifindex);
            if !stays && offload.refused.is_none() {
                let device = offload.device.clone();
                effects.push(Effect::RxVlanOffload { ifindex: *ifindex, device, on: true });
            }
            stays
        });
    }
}
