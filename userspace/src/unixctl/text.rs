//! The texts of ovs-vswitchd's commands, read strictly: what is not known is an error that quotes it.

use super::{FdbAge, FdbRow, FdbStats, FlowTable, OfPort};

/// `ovs-vswitchd (Open vSwitch) 3.1.0`; with DPDK, more lines follow.
pub(super) fn version(text: &str) -> Result<String, String> {
    let version = text.lines().next().and_then(|line| line.split_once("(Open vSwitch) "));
    match version {
        Some((_, version)) if !version.trim().is_empty() => Ok(version.trim().to_owned()),
        _ => Err(format!("no version in {:?}", shorten(text))),
    }
}

/// A header line, ` port  VLAN  MAC                Age` up to OVS 3.7 and ` Port  VLAN …` in 4.0, then rows.
pub(super) fn fdb(text: &str) -> Result<Vec<FdbRow>, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    if !matches!(header[..], ["port" | "Port", "VLAN", "MAC", "Age"]) {
        return Err(format!("unknown columns {:?}", shorten(&header.join(" "))));
    }
    lines.map(|line| fdb_row(line).ok_or_else(|| format!("unknown row {:?}", shorten(line)))).collect()
}

fn fdb_row(line: &str) -> Option<FdbRow> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [port, vid, mac, age] = fields[..] else { return None };
    let port = match port {
        "LOCAL" => OfPort::Local,
        number => OfPort::Number(number.parse().ok()?),
    };
    let vid = vid.parse().ok().filter(|vid| *vid < 4096)?;
    let age = match age {
        "static" => FdbAge::Static,
        seconds => FdbAge::Seconds(seconds.parse().ok()?),
    };
    Some(FdbRow { port, vid, mac: mac.parse().ok()?, age })
}

/// A title, then `LABEL : NUMBER` lines; the first has `CURRENT/MAXIMUM`.
pub(super) fn fdb_stats(text: &str) -> Result<FdbStats, String> {
    let mut stats = FdbStats::default();
    let mut sizes = None;
    for line in text.lines() {
        let unknown = || format!("unknown counter {:?}", shorten(line));
        let Some((label, value)) = line.rsplit_once(": ") else { continue };
        let counter = match label.trim() {
            "Current/maximum MAC entries in the table" => {
                sizes = value.split_once('/');
                continue;
            }
            "Current static MAC entries in the table" => &mut stats.static_entries,
            "Total number of learned MAC entries" => &mut stats.learned,
            "Total number of expired MAC entries" => &mut stats.expired,
            "Total number of evicted MAC entries" => &mut stats.evicted,
            "Total number of port moved MAC entries" => &mut stats.moved,
            _ => continue,
        };
        *counter = value.parse().map_err(|_| unknown())?;
    }
    let number = |text: &str| text.parse().map_err(|_| format!("unknown table size {:?}", shorten(text)));
    let (current, maximum) = sizes.ok_or_else(|| format!("no table size in {:?}", shorten(text)))?;
    Ok(FdbStats { current: number(current)?, maximum: number(maximum)?, ..stats })
}

/// One flow a line: `FIELD=VALUE, …, PRIORITY_AND_MATCH,actions=ACTIONS`.
pub(super) fn flow_table(text: &str) -> Result<FlowTable, String> {
    let mut normal = 0usize;
    let mut first = None;
    let mut count = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let flow = Flow::parse(line).ok_or_else(|| format!("unknown flow {:?}", shorten(line)))?;
        if flow.table == 254 {
            continue;
        }
        if flow.is_plain_normal() {
            normal += 1;
        } else {
            count += 1;
            first.get_or_insert_with(|| flow.to_text());
        }
    }
    Ok(match first {
        Some(first) => FlowTable::Other { first, count },
        None if normal > 0 => FlowTable::NormalOnly,
        None => FlowTable::Empty,
    })
}

struct Flow<'a> {
    table: u8,
    /// Priority and match, comma-separated; OVS leaves the default priority, 32768, out.
    rule: &'a str,
    actions: &'a str,
}

impl<'a> Flow<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mut rule, actions) = line.trim().split_once("actions=")?;
        let mut table = 0;
        while let Some((field, rest)) = rule.split_once(", ") {
            let (name, value) = field.split_once('=')?;
            match name {
                "table_id" => table = value.parse().ok()?,
                // The cookie is OVS 3.6's and later; offload counters come only when asked for.
                "cookie" | "duration" | "n_packets" | "n_bytes" | "n_offload_packets" | "n_offload_bytes" => {
                }
                _ => return None,
            }
            rule = rest;
        }
        Some(Self { table, rule: rule.trim_matches([',', ' ']), actions: actions.trim() })
    }

    fn is_plain_normal(&self) -> bool {
        let matches_all = match self.rule.strip_prefix("priority=") {
            Some(priority) => priority.parse::<u16>().is_ok(),
            None => self.rule.is_empty(),
        };
        self.table == 0 && matches_all && self.actions == "NORMAL"
    }

    fn to_text(&self) -> String {
        let table = if self.table == 0 { String::new() } else { format!("table={},", self.table) };
        let rule = if self.rule.is_empty() { String::new() } else { format!("{},", self.rule) };
        format!("{table}{rule}actions={}", self.actions)
    }
}

fn shorten(text: &str) -> String {
    const ENOUGH: usize = 120;
    match text.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_bare_number() {
        assert_eq!(version("ovs-vswitchd (Open vSwitch) 3.1.0\n").unwrap(), "3.1.0");
        assert_eq!(version("ovs-vswitchd (Open vSwitch) 4.0.90\nDPDK 24.11.1\n").unwrap(), "4.0.90");
        assert!(version("Linux").is_err());
    }

    #[test]
    fn fdb_rows_of_all_versions_are_read() {
        let row = |port, vid, mac: &str, age| FdbRow { port, vid, mac: mac.parse().unwrap(), age };
        let rows = "    2    10  50:54:00:00:00:01  static\n\
                    LOCAL     0  50:54:00:00:00:02    7\n\
                    65279  4095  50:54:00:00:00:03  -1699\n";
        let expected = [
            row(OfPort::Number(2), 10, "50:54:00:00:00:01", FdbAge::Static),
            row(OfPort::Local, 0, "50:54:00:00:00:02", FdbAge::Seconds(7)),
            row(OfPort::Number(65279), 4095, "50:54:00:00:00:03", FdbAge::Seconds(-1699)),
        ];
        for header in [" port  VLAN  MAC                Age\n", " Port  VLAN  MAC                Age\n"] {
            assert_eq!(fdb(&format!("{header}{rows}")).unwrap(), expected);
            assert_eq!(fdb(header).unwrap(), []);
        }
    }

    #[test]
    fn unknown_fdb_texts_are_refused() {
        for text in [
            "",
            "hello",
            " Bridge Port  VLAN  MAC  Age\n",
            " port VLAN MAC Age\n 1 10 50:54:00:00:00:01\n",
            " port VLAN MAC Age\n 1 4096 50:54:00:00:00:01 1\n",
            " port VLAN MAC Age\n eth0 1 50:54:00:00:00:01 1\n",
            " port VLAN MAC Age\n 1 1 50:54:00:00:00 1\n",
        ] {
            assert!(fdb(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn fdb_counters_are_read() {
        let text = "Statistics for bridge \"br: 0\":\n\
                    \x20 Current/maximum MAC entries in the table: 3/8192\n\
                    \x20 Current static MAC entries in the table : 2\n\
                    \x20 Total number of learned MAC entries     : 18446744073709551615\n\
                    \x20 Total number of expired MAC entries     : 4\n\
                    \x20 Total number of evicted MAC entries     : 5\n\
                    \x20 Total number of port moved MAC entries  : 6\n";
        let expected = FdbStats {
            current: 3,
            maximum: 8192,
            static_entries: 2,
            learned: u64::MAX,
            expired: 4,
            evicted: 5,
            moved: 6,
        };
        assert_eq!(fdb_stats(text).unwrap(), expected);
        let before_2_16 = text.replace("  Current static MAC entries in the table : 2\n", "");
        assert_eq!(fdb_stats(&before_2_16).unwrap(), FdbStats { static_entries: 0, ..expected });
        assert!(fdb_stats("").is_err());
        assert!(fdb_stats(&text.replace(": 4", ": four")).is_err());
    }

    const BASELINE: &str = "duration=0s, n_packets=0, n_bytes=0, priority=0,actions=NORMAL\n";
    const FIXED: &str = "table_id=254, duration=0s, n_packets=0, n_bytes=0, priority=2,recirc_id=0,actions=drop\n\
         table_id=254, duration=0s, n_packets=0, n_bytes=0, priority=0,reg0=0x1,actions=controller(reason=)\n\
         table_id=254, duration=0s, n_packets=0, n_bytes=0, priority=0,reg0=0x2,actions=drop\n";

    #[test]
    fn plain_normal_at_any_priority_is_normal_only() {
        for flow in [
            BASELINE,
            "duration=9s, n_packets=1, n_bytes=60, actions=NORMAL\n",
            "duration=9s, n_packets=1, n_bytes=60, ,actions=NORMAL\n",
            "cookie=0x7, duration=9s, n_packets=1, n_bytes=60, priority=10,actions=NORMAL\n",
        ] {
            assert_eq!(flow_table(&format!("{flow}{FIXED}")), Ok(FlowTable::NormalOnly), "{flow}");
        }
    }

    #[test]
    fn a_table_without_flows_is_empty() {
        assert_eq!(flow_table(FIXED), Ok(FlowTable::Empty));
    }

    #[test]
    fn any_other_flow_is_named() {
        let stats = "duration=1s, n_packets=0, n_bytes=0, ";
        for (flow, first) in [
            (format!("{stats}priority=10,in_port=2,actions=drop"), "priority=10,in_port=2,actions=drop"),
            (format!("{stats}in_port=2,actions=NORMAL"), "in_port=2,actions=NORMAL"),
            (format!("table_id=3, {stats}priority=0,actions=NORMAL"), "table=3,priority=0,actions=NORMAL"),
            (format!("{stats}priority=0,actions=NORMAL,output:1"), "priority=0,actions=NORMAL,output:1"),
            (format!("{stats}priority=180000,actions=NORMAL"), "priority=180000,actions=NORMAL"),
        ] {
            let other = FlowTable::Other { first: first.to_owned(), count: 1 };
            assert_eq!(flow_table(&format!("{BASELINE}{flow}\n{FIXED}")), Ok(other), "{flow}");
        }
    }

    #[test]
    fn unknown_flow_texts_are_refused() {
        for text in ["hello", "speed=9, actions=NORMAL", "table_id=x, actions=NORMAL"] {
            assert!(flow_table(text).is_err(), "{text}");
        }
    }
}
