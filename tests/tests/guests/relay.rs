//! The relay itself, on any kernel: two guests over a Linux bridge.

use trunkline_core::Mac;
use trunkline_tests::{Frame, Guest, Netns, Place, ping, station, tcp, udp, udp_segmented};

use crate::skip::load_drivers;

fn bridge() -> Netns {
    load_drivers();
    let switch = Netns::new();
    switch.run("ip link add br0 type bridge");
    switch.run("ip link set br0 up");
    switch
}

fn guest(switch: &Netns, port: &str) -> Guest {
    let guest = Guest::tap(switch, port);
    switch.run(&format!("ip link set {port} master br0"));
    guest
}

fn talk(from: Place<'_>, to: Place<'_>) -> Result<(), String> {
    ping(from.v4(), to.v4())?;
    ping(from.v6(), to.v6())?;
    udp(from.v4(), to.v4())?;
    udp_segmented(from.v4(), to.v4())?;
    udp_segmented(from.v6(), to.v6())?;
    tcp(from.v4(), to.v4(), 8 << 20)?;
    tcp(from.v6(), to.v6(), 8 << 20)?;
    Ok(())
}

#[test]
fn super_frames_and_partial_checksums_pass_between_relayed_guests() {
    let switch = bridge();
    let (one, two) = (guest(&switch, "t1"), guest(&switch, "t2"));
    let (at_one, at_two) = (one.address(None, 0, 1), two.address(None, 0, 2));
    for (from, to) in [(at_one, at_two), (at_two, at_one)] {
        talk(from, to).unwrap();
    }
    for guest in [&one, &two] {
        let relay = guest.relay().expect("a tap guest has a relay");
        for (way, relayed) in [("from", relay.from_guest()), ("to", relay.to_guest())] {
            // 32 MiB in segments would be more than 20,000 frames; acknowledgements count, too.
            assert!(relayed.gso > 200, "super-frames {way} {}: {relayed}", guest.port());
            assert!(relayed.partial > 400, "partial checksums {way} {}: {relayed}", guest.port());
            assert!(relayed.frames < 20_000, "frames {way} {}: {relayed}", guest.port());
            assert_eq!(relayed.refused, 0, "{way} {}: {relayed}", guest.port());
        }
        assert_eq!(guest.checksum_errors(), 0);
    }
}

/// The macvtap is on top of a veth here, as a kernel without Open vSwitch's datapath has no internal ports.
#[test]
fn super_frames_and_partial_checksums_pass_through_a_macvtap() {
    let switch = bridge();
    let one = guest(&switch, "t1");
    switch.run("ip link add lower type veth peer name upper");
    switch.run("ip link set lower master br0 up");
    switch.run("ip link set upper up");
    let two = Guest::macvtap(&switch, "upper");
    let (at_one, at_two) = (one.address(None, 0, 1), two.address(None, 0, 2));
    for (from, to) in [(at_one, at_two), (at_two, at_one)] {
        talk(from, to).unwrap();
    }
}

/// What the other tests rely on: a guest does not take a wrong checksum, and counts it.
#[test]
fn partial_checksum_without_its_header_is_a_counted_error() {
    let switch = bridge();
    let two = guest(&switch, "t2");
    two.address(None, 0, 2);
    let bare = switch.tap("t1");
    switch.run("ip link set t1 master br0");
    for (finished, errors) in [(true, 0), (false, 1)] {
        let seen = two.counters().rx_frames;
        bare.send(&Frame::new(station(), Mac::BROADCAST).udp(finished).bytes());
        trunkline_tests::wait_for("the frame to arrive", std::time::Duration::from_secs(5), || {
            (two.counters().rx_frames > seen).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(two.checksum_errors(), errors, "checksum finished: {finished}");
    }
}
