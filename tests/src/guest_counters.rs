//! What a guest's kernel has counted.

use std::fs;
use std::ops::Sub;

use crate::Netns;

/// Frames and octets at a device, as its kernel counts them: a super-frame is one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DeviceCounters {
    /// Received.
    pub rx_frames: u64,
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_frames: u64,
    /// Sent.
    pub tx_bytes: u64,
}

impl Sub for DeviceCounters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_frames: self.rx_frames - earlier.rx_frames,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_frames: self.tx_frames - earlier.tx_frames,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

/// Of a device, from `/proc/net/dev`.
pub(crate) fn device_counters(netns: &Netns, device: &str) -> DeviceCounters {
    let table = read(netns, "dev");
    let row = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    let row = row.unwrap_or_else(|| panic!("no {device} in {table}"));
    let values: Vec<u64> = row.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    DeviceCounters { rx_bytes: values[0], rx_frames: values[1], tx_bytes: values[8], tx_frames: values[9] }
}

/// Packets that the namespace has received with a wrong checksum: IP, ICMP, TCP, UDP, over IPv4 and IPv6.
pub(crate) fn checksum_errors(netns: &Netns) -> u64 {
    let by_tables: u64 =
        ["snmp", "netstat"].iter().map(|file| csum_errors_of_tables(&read(netns, file))).sum();
    by_tables + csum_errors_of_list(&read(netns, "snmp6"))
}

/// A line of names above a line of values, for each protocol.
pub(crate) fn csum_errors_of_tables(text: &str) -> u64 {
    let lines: Vec<&str> = text.lines().collect();
    let pairs =
        lines.chunks_exact(2).flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
    let errors = pairs.filter(|(name, _)| is_checksum_error(name));
    errors.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

/// A name and a value on each line.
fn csum_errors_of_list(text: &str) -> u64 {
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let errors = pairs.filter(|(name, _)| is_checksum_error(name));
    errors.map(|(_, value)| value.trim().parse::<u64>().expect("a number")).sum()
}

fn is_checksum_error(name: &str) -> bool {
    // `TCPACKSkippedCsum...` and the like have other endings.
    name.ends_with("InCsumErrors")
}

fn read(netns: &Netns, file: &str) -> String {
    let path = format!("/proc/thread-self/net/{file}");
    // Without IPv6 in the kernel there is no `snmp6`.
    netns.enter(|| fs::read_to_string(&path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_errors_of_every_protocol_count() {
        let tables = "Icmp: InMsgs InErrors InCsumErrors\nIcmp: 5 1 1\nTcp: InSegs InCsumErrors\nTcp: 9 2\n";
        assert_eq!(csum_errors_of_tables(tables), 3);
        let list = "Ip6InReceives   \t7\nUdp6InErrors  5\nUdp6InCsumErrors          \t4\n";
        assert_eq!(csum_errors_of_list(list), 4);
    }
}
