//! Showing stations to Open vSwitch, so that none of their frames has to.
//!
//! Open vSwitch forgets a station of which it sees no frame. A frame of it that is punted now and then would be overtaken by
//! those behind it, which take the fast path. So the agent has Open vSwitch handle a frame of its own in place of the station,
//! to the station itself: its age begins anew, and nothing is sent, as the frame would leave by the port that it came from.
//!
//! The station may move at that moment. Whatever a program sees of that, it writes into the entry; so the entry is compared
//! and exchanged once Open vSwitch has handled the frame. If it is another one by then, it is not certain in which order Open
//! vSwitch saw the two frames, and the station is shown again where it is now, until nothing comes in between.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, warn};
use trunkline_core::{FdbEntry, FdbKey, Mac, Tag, Tpid, Vid, abi};

use super::Agent;
use crate::dataplane::{BridgeNo, Dataplane, PortNo};
use crate::event::Effect;
use crate::fdb;

/// Most stations that are shown at a time: Open vSwitch handles them in one go.
const AT_ONCE: usize = 64;
/// Local Experimental EtherType 1 (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Octets of the shortest frame, less its check sequence.
const SHORTEST: usize = 60;

/// What is being shown to a bridge, and what is to be.
#[derive(Default, Debug)]
pub(super) struct Showing {
    /// Asked for by a program.
    due: BTreeSet<FdbKey>,
    /// Moved while they were being shown.
    contested: BTreeSet<FdbKey>,
    /// The question that is out, and its stations with their entries.
    out: Option<(u64, Vec<(FdbKey, FdbEntry)>)>,
}

impl Showing {
    /// Whether Open vSwitch may have a station elsewhere for the moment.
    #[cfg(test)]
    pub(super) fn has(&self, key: &FdbKey) -> bool {
        let out = self.out.iter().flat_map(|(_, stations)| stations);
        self.contested.contains(key) || out.into_iter().any(|(shown, _)| shown == key)
    }
}

impl<D: Dataplane> Agent<D> {
    #[cfg(test)]
    pub(super) fn is_showing(&self, bridge: &str, key: &FdbKey) -> bool {
        self.watched.get(bridge).is_some_and(|watched| watched.showing.has(key))
    }

    /// Programs ask for stations to be shown.
    pub(super) fn on_show(&mut self, shows: &[abi::Show]) {
        let mut bridges = BTreeSet::new();
        for show in shows {
            let Some(vid) = Vid::new(show.vid) else { continue };
            let key = FdbKey { bridge: show.bridge, vid, mac: Mac::new(show.mac) };
            let Some(name) = self.numbers.bridge_name(BridgeNo(show.bridge)) else { continue };
            if let Some(watched) = self.watched.get_mut(name) {
                watched.showing.due.insert(key);
                bridges.insert(name.to_owned());
            }
        }
        bridges.iter().for_each(|bridge| self.show(bridge));
    }

    /// Open vSwitch has handled what was shown, or it is not known whether it has.
    pub(super) fn on_shown(&mut self, bridge: &str, question: u64, answer: Result<(), String>) {
        let Some(watched) = self.watched.get_mut(bridge) else { return };
        let Some((_, stations)) = watched.showing.out.take_if(|(out, _)| *out == question) else { return };
        if let Err(cause) = &answer {
            debug!(bridge, cause, "stations could not be shown to Open vSwitch");
        }
        for (key, entry) in stations {
            let shown = FdbEntry { shown_s: self.now_s, ..entry };
            let moved = match (&answer, self.dataplane.station(&key)) {
                (Ok(()), Some(now)) if now == entry => !self.dataplane.replace_station(&key, entry, shown),
                (_, Some(now)) => now.port != entry.port && !now.fixed && !fdb::is_aside(now),
                (_, None) => false,
            };
            if moved && let Some(watched) = self.watched.get_mut(bridge) {
                watched.showing.contested.insert(key);
            }
        }
        self.show(bridge);
    }

    /// Shows the next stations, unless some are being shown.
    fn show(&mut self, bridge: &str) {
        let Some(number) = self.bridge_no(bridge) else { return };
        let ofports: BTreeMap<PortNo, u16> =
            self.ports_by_ofport(bridge).into_iter().map(|(ofport, port)| (port, ofport)).collect();
        let installed = self.dataplane.installed();
        let times = installed.active.get(&number).copied();
        let Some((watched, times)) = self.watched.get_mut(bridge).zip(times) else { return };
        if watched.showing.out.is_some() {
            return;
        }
        let (mut stations, mut frames) = (Vec::new(), Vec::new());
        while stations.len() < AT_ONCE {
            let showing = &mut watched.showing;
            let contested = showing.contested.pop_first();
            let Some(key) = contested.or_else(|| showing.due.pop_first()) else { break };
            let Some(entry) = self.dataplane.station(&key).filter(|entry| !entry.fixed) else { continue };
            // A frame of it may have been punted meanwhile.
            if contested.is_none() && !entry.is_to_be_shown(self.now_s, times.refresh_s / 2) {
                continue;
            }
            let port = PortNo(entry.port);
            let frame = installed.ports.get(&port).and_then(|port| frame(&key, &port.rules));
            if let (Some(frame), Some(ofport)) = (frame, ofports.get(&port)) {
                stations.push((key, entry));
                frames.push((*ofport, frame));
            }
        }
        if stations.is_empty() {
            return;
        }
        self.questions += 1;
        watched.showing.out = Some((self.questions, stations));
        self.effects.push(Effect::Show { bridge: bridge.to_owned(), question: self.questions, frames });
        if watched.showing.due.len() > abi::MAX_PORTS as usize * AT_ONCE {
            warn!(
                bridge,
                "more stations are to be shown than Open vSwitch takes; frames of theirs are punted"
            );
            watched.showing.due.clear();
        }
    }
}

/// A frame that a port puts into the station's VLAN, from the station to itself.
fn frame(key: &FdbKey, rules: &abi::Port) -> Option<Vec<u8>> {
    let tag = Tag::from_wire(Tpid::Dot1Q, key.vid.get());
    let tag = [None, Some(tag)].into_iter().find(|tag| {
        // VID 0 in a tag is no VLAN.
        let classified = rules.classify(*tag).filter(|_| tag.is_none_or(|_| key.vid != Vid::ZERO));
        classified.is_some_and(|classified| classified.vid == key.vid)
    })?;
    let mac = key.mac.octets();
    let mut frame = [mac, mac].concat();
    frame.extend(tag.into_iter().flat_map(Tag::to_bytes));
    frame.extend(ETHERTYPE);
    frame.resize(SHORTEST, 0);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_such_as_the_port_puts_into_the_vlan() {
        let key = |vid| FdbKey { bridge: 0, vid: Vid::new(vid).unwrap(), mac: Mac::new([2, 0, 0, 0, 0, 9]) };
        let members = [10, 20].map(|vid| Vid::new(vid).unwrap()).into_iter().collect();
        let flags = abi::PORT_VALID | abi::PORT_ACCEPT_TAGGED;
        let native = abi::Port { pvid: 10, untagged: 10, flags, members, ..abi::Port::UNUSED };
        let start = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 9];
        let untagged = frame(&key(10), &native).unwrap();
        assert_eq!((&untagged[..14], untagged.len()), (&[&start[..], &ETHERTYPE].concat()[..], 60));
        let tagged = frame(&key(20), &native).unwrap();
        assert_eq!(&tagged[..18], [&start[..], &[0x81, 0, 0, 20], &ETHERTYPE].concat());
        assert_eq!(frame(&key(30), &native), None, "not a VLAN of the port");
        let access = abi::Port { flags: abi::PORT_VALID, ..native };
        assert_eq!(frame(&key(20), &access), None, "it takes no tags");
    }
}
