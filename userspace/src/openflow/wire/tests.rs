use proptest::prelude::*;

use super::*;

fn phy_port_bytes(number: u16, name: &str, config: u32) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend([0xaa, 0x55, 0xaa, 0x55, 0, 1]);
    bytes.extend(name.bytes().chain(std::iter::repeat(0)).take(16));
    bytes.extend(config.to_be_bytes());
    bytes.extend([0; 20]);
    bytes
}

#[test]
fn requests_are_laid_out_as_in_the_headers() {
    assert_eq!(hello(), [1, 0, 0, 8, 0, 0, 0, 0]);
    assert_eq!(set_config(1), [1, 9, 0, 12, 0, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(
        set_controller_id(),
        [1, 4, 0, 24, 0, 0, 0, 0, 0, 0, 0x23, 0x20, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0x74, 0x6c]
    );
    assert_eq!(
        monitor_flows(),
        [
            1, 16, 0, 40, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20, 0, 0, 0, 2, 0, 0, 0,
            0, // stats
            0, 0, 0, 1, 0, 14, 0xff, 0xff, 0, 0, 0xff, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(set_async_config().len(), 16 + 24);
}

#[test]
fn a_hello_tells_whether_it_offers_openflow_10() {
    let offers = |hello: &[u8]| parse(hello).map(|parsed| parsed == Incoming::Hello { offers_us: true });
    assert_eq!(offers(&[6, 0, 0, 8, 0, 0, 0, 0]), Ok(true));
    assert_eq!(offers(&[4, 0, 0, 16, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0x12]), Ok(true));
    assert_eq!(offers(&[4, 0, 0, 16, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0x10]), Ok(false));
    assert_eq!(offers(&[4, 0, 0, 16, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x10]), Ok(true));
    assert_eq!(offers(&[4, 0, 0, 12, 0, 0, 0, 0, 0, 1, 0, 2]), Err(WireError::Length(HELLO)));
}

#[test]
fn ports_are_described_with_their_flags() {
    let body =
        [phy_port_bytes(1, "p1", NO_RECV | NO_FWD), phy_port_bytes(0xfffe, "a-name-of-16-byt", NO_FLOOD)];
    let reply = message(STATS_REPLY, 7, &[&[0, 13, 0, 1], &body.concat()]);
    let flags = |name: &str, no_receive, no_forward, no_flood| PortFlags {
        name: name.to_owned(),
        no_receive,
        no_forward,
        no_flood,
    };
    let ports =
        [(1, flags("p1", true, true, false)), (0xfffe, flags("a-name-of-16-byt", false, false, true))];
    assert_eq!(parse(&reply), Ok(Incoming::Ports { xid: 7, ports: ports.into(), more: true }));
}

#[test]
fn port_status_tells_what_became_of_a_port() {
    let status = |reason: u8| {
        message(PORT_STATUS, UNASKED, &[&[reason, 0, 0, 0, 0, 0, 0, 0], &phy_port_bytes(7, "p7", NO_FLOOD)])
    };
    let flags = PortFlags { name: "p7".to_owned(), no_flood: true, ..PortFlags::default() };
    assert_eq!(parse(&status(2)), Ok(Incoming::PortPut(7, flags)));
    assert_eq!(parse(&status(1)), Ok(Incoming::PortGone(7)));
}

#[test]
fn only_a_reply_with_updates_is_a_change() {
    let reply = |updates: &[u8]| {
        let head = [0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20, 0, 0, 0, 2, 0, 0, 0, 0];
        parse(&message(STATS_REPLY, 7, &[&head, updates]))
    };
    assert_eq!(reply(&[]), Ok(Incoming::Monitoring { xid: 7 }));
    assert_eq!(reply(&[0, 8, 0, 4, 0, 0, 0, 0]), Ok(Incoming::FlowsChanged));
}

#[test]
fn an_echo_is_answered_with_its_own_content() {
    let request = [1, 2, 0, 10, 1, 2, 3, 4, 0xab, 0xcd];
    let reply = vec![1, 3, 0, 10, 1, 2, 3, 4, 0xab, 0xcd];
    assert_eq!(parse(&request), Ok(Incoming::EchoRequest(reply.clone())));
    assert_eq!(parse(&reply), Ok(Incoming::EchoReply { xid: 0x0102_0304 }));
}

#[test]
fn other_protocols_are_refused() {
    assert_eq!(complete_message(b"HTTP/1.1 400"), Err(WireError::Version(b'H')));
    assert_eq!(complete_message(&[1, 8, 0, 7]), Err(WireError::Length(8)));
    assert_eq!(complete_message(&[0; 8]), Err(WireError::Version(0)));
    assert_eq!(complete_message(&[4, 0, 0, 16, 0, 0, 0, 0]), Ok(None));
    assert_eq!(parse(&[1, 12, 0, 9, 0, 0, 0, 0, 0]), Err(WireError::Length(PORT_STATUS)));
}

proptest! {
    #[test]
    fn junk_never_panics(kind in 0u8..30, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&message(kind, UNASKED, &[&body]));
        let _ = parse(&body);
        let _ = complete_message(&body);
    }
}
