//! TCP between two hosts on veth ports, with and without the sender's checksum offload.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use trunkline_tests::{Host, Switch, Vlan, patience};

const SIZE: usize = 4 << 20;
const LIMIT: Duration = Duration::from_secs(5);

/// A switch with two hosts in VLAN 10.
fn hosts(offloads: Option<&str>) -> (Switch, [Host; 2]) {
    let mut switch = Switch::new();
    let one = switch.add_host("v1", &Vlan::Access(10), "10.0.0.1/24");
    let two = switch.add_host("v2", &Vlan::Access(10), "10.0.0.2/24");
    let hosts = [one, two];
    for host in &hosts {
        offloads.iter().for_each(|setting| host.offload(setting));
    }
    (switch, hosts)
}

/// Sends `SIZE` octets from the first host to the second; whether they all arrived, and unchanged.
fn transfer([from, to]: &[Host; 2]) -> bool {
    let address: SocketAddr = "10.0.0.2:5001".parse().expect("an address");
    let sent: Vec<u8> = (0..SIZE).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let listener = to.netns().enter(|| TcpListener::bind(address)).expect("a listener");
    listener.set_nonblocking(true).expect("a listener that does not block");
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut stream = accept(&listener)?;
            stream.set_read_timeout(Some(patience(LIMIT))).ok()?;
            let mut received = Vec::with_capacity(SIZE);
            stream.read_to_end(&mut received).ok()?;
            Some(received)
        });
        let send = || {
            let mut stream = TcpStream::connect_timeout(&address, patience(LIMIT))?;
            stream.set_write_timeout(Some(patience(LIMIT)))?;
            stream.write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        };
        let _ = from.netns().enter(send);
        receiver.join().expect("the receiver ends").is_some_and(|received| received == sent)
    })
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let deadline = std::time::Instant::now() + patience(LIMIT);
    while std::time::Instant::now() < deadline {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).ok()?;
            return Some(stream);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Where it works with Open vSwitch alone, it works with the agent, and no receiver sees a wrong checksum.
fn works_wherever_it_works_without(offloads: Option<&str>) -> bool {
    let (_alone, alone_hosts) = hosts(offloads);
    let works_alone = transfer(&alone_hosts);
    let (mut switch, fast_hosts) = hosts(offloads);
    switch.start_agent();
    switch.wait_status("the hosts' ports to be accelerated", |status| {
        status.accelerates("v1") && status.accelerates("v2")
    });
    let before = switch.forwarded("v1");
    let works = transfer(&fast_hosts);
    assert!(works || !works_alone, "TCP with {offloads:?} works without the agent and not with it");
    if works_alone {
        for host in alone_hosts.iter().chain(&fast_hosts) {
            assert_eq!(host.checksum_errors(), 0, "wrong checksums received, with {offloads:?}");
        }
        if offloads.is_some() {
            let forwarded = switch.forwarded("v1").zip(before).map(|(after, before)| after - before);
            assert!(forwarded.is_none_or(|frames| frames > 1000), "by the fast path: {forwarded:?} frames");
        }
    }
    works_alone
}

#[test]
fn tcp_with_default_offloads() {
    works_wherever_it_works_without(None);
}

#[test]
fn tcp_without_transmit_offloads() {
    assert!(works_wherever_it_works_without(Some("tx off")), "Open vSwitch alone carries it");
}
