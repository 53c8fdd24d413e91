//! The switching rules of trunkline, and the layouts of its BPF maps.
//!
//! One crate serves every place that has to know what Open vSwitch's NORMAL action does with a
//! frame: the XDP and tc programs, `trunkline trace`, the host tests and the benches. It has no clock, no
//! I/O, no allocation and no `unsafe`: time, identities and tables are parameters ([`Tables`]).
//!
//! What it guarantees: a frame is forwarded or dropped only where NORMAL certainly forwards or drops
//! it, to the same port and with the same tags; every other frame is a [`Verdict::Punt`], which means
//! "Open vSwitch gets it, untouched". What it refuses: flooding, learning without Open vSwitch seeing
//! the frame, and frames with more than one tag.
//!
//! Start reading at [`switch`].

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod abi;
mod checksum;
mod clock;
mod fdb;
mod flow;
mod frame;
mod mac;
mod port;
mod switch;
pub mod table;
mod tables;
mod trace;
mod verdict;
mod vlan;

pub use checksum::{L4Checksum, carries_tcp, l4_checksum};
pub use clock::Ticks;
pub use fdb::{FdbEntry, FdbKey, Freshness};
pub use frame::{Frame, HEADER_LEN, Header, Hook, PLAIN_LEN, Payload, SHORTEST, Start};
pub use mac::Mac;
pub use port::{Classified, PriorityTags};
pub use switch::{Outcome, finish, lookup_flow, slow_path, switch};
pub use tables::{Clock, FlowCache, Tables, Uncached};
pub use trace::{Decision, EncodedDecision, TraceAnswer, TraceQuestion};
pub use verdict::{DropReason, PuntReason, TagOp, Verdict};
pub use vlan::{Pcp, Tag, Tpid, Vid, VidSet};
