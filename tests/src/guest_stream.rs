//! Datagrams that go on while something else happens, each of them accounted for; and as many as will go.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::guest_traffic::End;

/// Between two datagrams of a steady stream.
const PACE: Duration = Duration::from_millis(5);
/// For the last datagrams to arrive.
const GRACE: Duration = Duration::from_millis(500);
/// Of a datagram that fills an Ethernet frame but for what IPv6 and a tag may need.
const FULL: usize = 1400;

/// What became of a stream.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Account {
    /// Datagrams sent.
    pub sent: u64,
    /// Of these, received.
    pub received: u64,
    /// Received again.
    pub twice: u64,
    /// Received, but not as sent.
    pub changed: u64,
}

impl Account {
    /// Sent and not received.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        let Self { sent, received, twice, changed } = other;
        self.sent += sent;
        self.received += received;
        self.twice += twice;
        self.changed += changed;
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, twice, changed, .. } = self;
        write!(out, "{} of {sent} lost, {twice} twice, {changed} changed", self.lost())
    }
}

/// Sends a datagram every 5 ms until told to stop, and accounts for each.
///
/// # Errors
/// When there is no socket to be had.
pub fn stream(from: End<'_>, to: End<'_>, stop: &AtomicBool) -> io::Result<Account> {
    let (sender, receiver) = sockets(from, to)?;
    let peer = receiver.local_addr()?;
    let last = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let (mut seen, mut twice, mut changed) = (Vec::new(), 0, 0);
            let mut buffer = [0; 2 * FULL];
            while !last.load(Ordering::Relaxed) {
                let Ok(length) = receiver.recv(&mut buffer) else { continue };
                match number_of(&buffer[..length]) {
                    Some(number) => seen.push(number),
                    None => changed += 1,
                }
            }
            let all = seen.len();
            seen.sort_unstable();
            seen.dedup();
            twice += (all - seen.len()) as u64;
            (seen.len() as u64, twice, changed)
        });
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            // A datagram that its own kernel refuses is lost, too.
            let _ = sender.send_to(&datagram(sent), peer);
            sent += 1;
            thread::sleep(PACE);
        }
        thread::sleep(GRACE);
        last.store(true, Ordering::Relaxed);
        let (received, twice, changed) = receiving.join().expect("the receiver ends");
        Ok(Account { sent, received, twice, changed })
    })
}

/// Sends full frames for `time`, as many as will go. Returns the octets of payload that arrived in that time, a second.
///
/// # Errors
/// When there is no socket to be had.
pub fn flood(from: End<'_>, to: End<'_>, time: Duration) -> io::Result<f64> {
    let (sender, receiver) = sockets(from, to)?;
    sender.set_write_timeout(Some(Duration::from_millis(20)))?;
    let peer = receiver.local_addr()?;
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while begin.elapsed() < time {
                let _ = sender.send_to(&[0x5a; FULL], peer);
            }
        });
        let mut octets = 0;
        while begin.elapsed() < time {
            octets += receiver.recv(&mut [0; 2 * FULL]).unwrap_or(0);
        }
        Ok(octets as f64 / begin.elapsed().as_secs_f64())
    })
}

fn sockets(from: End<'_>, to: End<'_>) -> io::Result<(UdpSocket, UdpSocket)> {
    let [sender, receiver] = [from, to].map(|end| end.netns.enter(|| UdpSocket::bind((end.address, 0))));
    let (sender, receiver) = (sender?, receiver?);
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok((sender, receiver))
}

/// The number, and octets that follow from it; of one of several lengths.
fn datagram(number: u64) -> Vec<u8> {
    let length = [64, 200, 700, FULL][(number % 4) as usize];
    let mut datagram = number.to_be_bytes().to_vec();
    datagram.resize(length, number as u8);
    datagram
}

/// The number of a datagram that arrived unchanged.
fn number_of(received: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*received.first_chunk()?);
    (datagram(number) == received).then_some(number)
}
