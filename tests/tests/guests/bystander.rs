//! Stations that take part in a VLAN, but in no conversation.

use trunkline_tests::{Host, Switch, Vlan, Wire};

pub(crate) struct Bystander {
    wire: Wire,
    _host: Host,
}

impl Bystander {
    pub(crate) fn new(switch: &mut Switch, port: &str, vid: u16) -> Self {
        let host = switch.add_host(port, &Vlan::Access(vid), "10.0.99.1/24");
        Self { wire: host.netns().packet_socket("eth0"), _host: host }
    }

    /// Frames that it has received since it was last asked and that are for one station, which is not this.
    pub(crate) fn misdirected(&self) -> usize {
        self.received().filter(|frame| frame[0] & 1 == 0).count()
    }

    /// Frames that it has received since it was last asked.
    pub(crate) fn received(&self) -> impl Iterator<Item = Vec<u8>> {
        std::iter::from_fn(|| self.wire.receive())
    }
}
