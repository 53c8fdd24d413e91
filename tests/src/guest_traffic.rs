//! Conversations between real stacks: what was sent is what must arrive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::segment_datagrams;
use crate::{Netns, output};

/// For a stack to give up, and for all of a transfer: generous, as an emulated machine is slow.
const LIMIT: Duration = Duration::from_secs(30);
const LONGEST_TRANSFER: usize = 16 << 20;
/// Datagrams under way at once, so that no queue runs over.
const WINDOW: usize = 8;
/// With an IPv4 header, what the longest frame carries of ICMP or UDP.
const MTU_PAYLOAD: usize = 1500 - 20 - 8;

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where the stack is.
    pub netns: &'a Netns,
    /// Its address there.
    pub address: IpAddr,
}

/// Two echoes, one of them with the longest frame; neither may be lost.
///
/// # Errors
/// What `ping` said.
pub fn ping(from: End<'_>, to: End<'_>) -> Result<(), String> {
    for size in [56, MTU_PAYLOAD] {
        let (size, address) = (size.to_string(), to.address.to_string());
        let mut ping = from.netns.command("ping");
        // One each: after the first answer, `ping` waits for the others no longer than twice as long as that took.
        ping.args(["-n", "-q", "-c", "1", "-W", "5", "-s", &size]);
        if to.address.is_ipv4() {
            ping.args(["-M", "do"]);
        }
        let said = output(ping.arg(&address));
        if !said.status.success() {
            let text = [said.stdout, said.stderr].concat();
            return Err(format!("ping of {size} octets to {address}: {}", String::from_utf8_lossy(&text)));
        }
    }
    Ok(())
}

/// Sends `size` octets (up to 16 MiB) by TCP; returns how long it took.
///
/// # Errors
/// When not all of them arrived, or others did.
pub fn tcp(from: End<'_>, to: End<'_>, size: usize) -> Result<Duration, String> {
    let failed = |what: &str, error: io::Error| format!("TCP to {}: {what}: {error}", to.address);
    let sent = pattern(size);
    let listener =
        to.netns.enter(|| TcpListener::bind((to.address, 0))).map_err(|e| failed("listening", e))?;
    let address = listener.local_addr().map_err(|e| failed("listening", e))?;
    let begin = Instant::now();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_all(&listener, size));
        let send = || {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_write_timeout(Some(LIMIT))?;
            stream.write_all(sent)?;
            stream.shutdown(Shutdown::Write)?;
            // Until the other has read all, or has given up.
            stream.set_read_timeout(Some(LIMIT))?;
            stream.read(&mut [0])
        };
        let sending = from.netns.enter(send);
        let received = receiver.join().expect("the receiver ends");
        let received = received.map_err(|e| failed("receiving", e))?;
        sending.map_err(|e| failed("sending", e))?;
        if received != sent {
            let same = received.iter().zip(sent).take_while(|(one, other)| one == other).count();
            let received = received.len();
            return Err(format!("TCP to {}: {received} of {size} octets, {same} right", to.address));
        }
        Ok(begin.elapsed())
    })
}

/// Datagrams of all sizes there, and each of them back: from the least to the longest frame, and two that are cut into
/// fragments.
///
/// # Errors
/// When one is lost, in either direction, or changed.
pub fn udp(from: End<'_>, to: End<'_>) -> Result<(), String> {
    let sizes = [8, 18, 64, 65, 511, 1000, 1400, MTU_PAYLOAD - 20, MTU_PAYLOAD, 4000, 9000];
    let datagrams: Vec<Vec<u8>> = sizes.iter().cycle().take(44).enumerate().map(datagram).collect();
    let echoed = converse(from, to, |socket, peer| {
        for some in datagrams.chunks(WINDOW) {
            some.iter().try_for_each(|datagram| socket.send_to(datagram, peer).map(|_| ()))?;
            let mut left: Vec<&Vec<u8>> = some.iter().collect();
            while !left.is_empty() {
                let echo = receive(socket)?;
                let place = left.iter().position(|sent| **sent == echo);
                left.remove(place.ok_or_else(|| io::Error::other("a datagram came back changed, or twice"))?);
            }
        }
        Ok(())
    });
    echoed.map_err(|error| format!("UDP to {}: {error}", to.address))
}

/// Super-frames of UDP: ten datagrams in each, cut by whoever must.
///
/// # Errors
/// When one is lost or changed.
pub fn udp_segmented(from: End<'_>, to: End<'_>) -> Result<(), String> {
    const SEGMENT: u16 = 1200;
    let parts: Vec<Vec<u8>> = (0..10).map(|number| datagram((number, &usize::from(SEGMENT)))).collect();
    let done = converse(from, to, |socket, peer| {
        segment_datagrams(socket, SEGMENT)?;
        for _ in 0..4 {
            socket.send_to(&parts.concat(), peer)?;
            let mut echoes = parts.iter().map(|_| receive(socket)).collect::<io::Result<Vec<_>>>()?;
            echoes.sort();
            let mut sent = parts.clone();
            sent.sort();
            if echoes != sent {
                return Err(io::Error::other("other datagrams came back"));
            }
        }
        Ok(())
    });
    done.map_err(|error| format!("segmented UDP to {}: {error}", to.address))
}

/// Lets `talk` have a socket at `from` and the address of an echo at `to`.
fn converse(
    from: End<'_>,
    to: End<'_>,
    talk: impl FnOnce(&UdpSocket, SocketAddr) -> io::Result<()> + Send,
) -> io::Result<()> {
    let [ours, echo] = [from, to].map(|end| end.netns.enter(|| UdpSocket::bind((end.address, 0))));
    let (ours, echo) = (ours?, echo?);
    ours.set_read_timeout(Some(Duration::from_secs(5)))?;
    echo.set_read_timeout(Some(Duration::from_millis(20)))?;
    let peer = echo.local_addr()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, sender)) = echo.recv_from(&mut buffer) {
                    // What cannot be sent back is lost, and found missing.
                    let _ = echo.send_to(&buffer[..length], sender);
                }
            }
        });
        let talked = talk(&ours, peer);
        done.store(true, Ordering::Relaxed);
        talked
    })
}

fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn receive_all(listener: &TcpListener, size: usize) -> io::Result<Vec<u8>> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + LIMIT;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut received = Vec::with_capacity(size);
    stream.read_to_end(&mut received)?;
    Ok(received)
}

/// Octets that do not repeat at any distance of importance.
fn pattern(size: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..LONGEST_TRANSFER).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    });
    &PATTERN[..size]
}

/// A datagram of this size that no other is like.
fn datagram((number, size): (usize, &usize)) -> Vec<u8> {
    let mut datagram = number.to_be_bytes().to_vec();
    datagram.extend_from_slice(pattern(*size));
    datagram.truncate(*size);
    datagram
}
