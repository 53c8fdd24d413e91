//! One table of cases for all judges: bridges, what happened on them before, and frames.
//!
//! A [`Case`] is plain data. [`any_case`] makes random ones that shrink, [`FastPath`] asks the switching core and the
//! loaded program, [`DummyOvs`] asks Open vSwitch, and [`judge`] compares. A case that was once judged differently is
//! kept as a file in `tests/cases/` and judged again in every run.

mod dummy_ovs;
mod fast_path;
mod generate;
mod judge;
mod shrink;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trunkline_core::Mac;

pub use dummy_ovs::{Answer, DummyOvs, OvsBinaries};
pub use fast_path::{FastPath, edited, traced};
pub use generate::{FRAMES, any_case, runner};
pub use judge::{Tally, judge};

/// Most ports of a case.
pub const MAX_PORTS: usize = 8;

/// A bridge and, in order, what happens on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows; empty for a random one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The ports, `p1` first.
    pub ports: Vec<PortSettings>,
    /// `Bridge.flood_vlans`
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flood_vlans: BTreeSet<u16>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The columns of a Port that take part.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSettings {
    /// `vlan_mode`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_mode: Option<String>,
    /// `tag`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<u16>,
    /// `trunks`
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub trunks: BTreeSet<u16>,
    /// `other_config:priority-tags`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_tags: Option<String>,
    /// `protected`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// Whether the fast path has a tap here, whose senders may leave checksums to hardware, rather than a network card.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tap: bool,
}

/// Something that happens on the bridge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Step {
    /// `fdb/add` of a station to port `pN`.
    Static {
        /// N.
        port: usize,
        /// Its VLAN.
        vid: u16,
        /// Its address.
        mac: String,
    },
    /// A frame arrives at port `pN`.
    Frame {
        /// N.
        port: usize,
        /// Its first octets in hexadecimal.
        octets: String,
        /// How long it is; zeros follow the octets given.
        length: usize,
    },
}

impl Step {
    /// The number of the port that it is about.
    pub fn port(&self) -> usize {
        match self {
            Self::Static { port, .. } | Self::Frame { port, .. } => *port,
        }
    }

    /// An operator's entry.
    pub fn fixed(port: usize, vid: u16, mac: Mac) -> Self {
        Self::Static { port, vid, mac: mac.to_string() }
    }

    /// A frame, whose zeros at the end need not be written down.
    pub fn frame(port: usize, bytes: &[u8]) -> Self {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self::Frame { port, octets: hex(&bytes[..end]), length: bytes.len() }
    }
}

/// Octets as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The octets of a frame that is written as [`Step::Frame`].
///
/// # Panics
/// When they are not hexadecimal, or more than `length`.
pub fn frame_bytes(octets: &str, length: usize) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&octets[at..at + 2], 16);
    let mut bytes: Vec<u8> = (0..octets.len())
        .step_by(2)
        .map(|at| octet(at).unwrap_or_else(|error| panic!("{octets}: {error}")))
        .collect();
    assert!(bytes.len() <= length, "{octets} is longer than {length} octets");
    bytes.resize(length, 0);
    bytes
}

impl Case {
    /// The settings as words of `ovs-vsctl`, for a bridge that always has ports `p1` to `p8`; those that the case does
    /// not have are as they are by default.
    pub fn as_columns(&self, bridge: &str) -> String {
        let list = |vids: &BTreeSet<u16>| vids.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let spare = PortSettings::default();
        let columns = |n: usize| {
            let settings = self.ports.get(n - 1).unwrap_or(&spare);
            let PortSettings { vlan_mode, tag, trunks, priority_tags, protected, tap: _ } = settings;
            let priority_tags = priority_tags.as_ref().map(|value| format!("{{priority-tags={value}}}"));
            format!(
                "-- set Port p{n} vlan_mode={} tag={} trunks=[{}] other_config={} protected={protected}",
                vlan_mode.as_deref().unwrap_or("[]"),
                tag.map_or("[]".to_owned(), |tag| tag.to_string()),
                list(trunks),
                priority_tags.as_deref().unwrap_or("{}"),
            )
        };
        let ports: Vec<_> = (1..=MAX_PORTS).map(columns).collect();
        format!("set Bridge {bridge} flood_vlans=[{}] {}", list(&self.flood_vlans), ports.join(" "))
    }

    /// Where recorded cases are kept.
    pub fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
    }

    /// The recorded cases, by file name.
    ///
    /// # Panics
    /// When a file cannot be read, or is not a case.
    pub fn recorded() -> Vec<(String, Self)> {
        let files = fs::read_dir(Self::directory()).expect("the directory of recorded cases");
        let mut files: Vec<_> = files.map(|file| file.expect("a directory entry").path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let read = |file: PathBuf| {
            let text =
                fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let case = serde_json::from_str(&text);
            let case = case.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), case)
        };
        files.into_iter().map(read).collect()
    }

    /// Writes the case to the recorded ones, and says where.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn record(&self, name: &str) -> PathBuf {
        let file = Self::directory().join(name).with_extension("json");
        let text = serde_json::to_string_pretty(self).expect("plain data");
        fs::write(&file, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_without_its_padding() {
        let bytes = [&[2, 0xab, 0][..], &[1], &[0; 56]].concat();
        let Step::Frame { octets, length, .. } = Step::frame(1, &bytes) else { unreachable!() };
        assert_eq!((octets.as_str(), length), ("02ab0001", 60));
        assert_eq!(frame_bytes(&octets, length), bytes);
    }

    #[test]
    fn recorded_cases_are_read() {
        for (name, case) in Case::recorded() {
            assert!((1..=MAX_PORTS).contains(&case.ports.len()), "{name}");
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case, "{name}");
        }
    }
}
