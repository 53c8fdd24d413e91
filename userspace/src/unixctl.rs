//! ovs-vswitchd's command socket, the one `ovs-appctl` uses: what the database does not tell.
//!
//! [`Unixctl`] finds the socket by the daemon's pid file, keeps a few connections and opens new ones when the daemon
//! was restarted. Commands run in the daemon's main thread, so callers ask seldom. In each turn of its main loop the
//! daemon serves every connection, so those who ask about many bridges at a time do not wait for each other. Every
//! question has a time-out of its own, which begins when it is sent. The texts are those of OVS 2.13 to 4.0; a text
//! that is not understood is an [`UnixctlError::Protocol`], never a guess.

mod connections;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use trunkline_core::Mac;

use crate::jsonrpc::JsonRpcError;
use connections::Connections;

/// How long a command may take.
pub const TIME_OUT: Duration = Duration::from_secs(2);
/// Why a command gave no answer.
#[derive(Debug, Error)]
pub enum UnixctlError {
    /// No daemon: no pid file, or nobody listens where it points.
    #[error("ovs-vswitchd is not running: {}: {cause}", path.display())]
    NotRunning {
        /// The pid file or the socket.
        path: PathBuf,
        /// What the system said about it.
        cause: io::Error,
    },
    /// The socket is there, and this process may not use it, or the system failed.
    #[error("cannot reach ovs-vswitchd: {}: {cause}", path.display())]
    Unreachable {
        /// The pid file or the socket.
        path: PathBuf,
        /// What the system said about it.
        cause: io::Error,
    },
    /// The daemon did not answer in time.
    #[error("ovs-vswitchd did not answer `{command}` within {} s", after.as_secs_f32())]
    TimedOut {
        /// The command.
        command: String,
        /// How long it was given.
        after: Duration,
    },
    /// Others had no answer in time, or this one's turn did not come.
    #[error("ovs-vswitchd is too slow in answering others, so it was not asked `{command}`")]
    NotAsked {
        /// The command.
        command: String,
    },
    /// The daemon refused the command.
    #[error("ovs-vswitchd refused `{command}`: {message}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// OVS's own text.
        message: String,
    },
    /// The stream broke or carried something else than JSON-RPC.
    #[error("`{command}` to ovs-vswitchd: {cause}")]
    Stream {
        /// The command.
        command: String,
        /// What happened.
        cause: JsonRpcError,
    },
    /// The answer is not what this program knows how to read.
    #[error("cannot read ovs-vswitchd's answer to `{command}`: {detail}")]
    Protocol {
        /// The command.
        command: String,
        /// The text in question.
        detail: String,
    },
}

/// An OpenFlow port, as `fdb/show` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OfPort {
    /// `Interface.ofport`. Of a bond it is any one member's.
    Number(u16),
    /// The bridge's own port.
    Local,
}

/// How long ago OVS last saw a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FdbAge {
    /// Seconds; negative for what was a static entry before `mac-aging-time` changed.
    Seconds(i64),
    /// Added by hand; does not age.
    Static,
}

/// One row of `fdb/show`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbRow {
    /// Where the station is.
    pub port: OfPort,
    /// OVS's internal VLAN, 0 to 4095.
    pub vid: u16,
    /// The station.
    pub mac: Mac,
    /// When it was last seen.
    pub age: FdbAge,
}

/// `fdb/stats-show`: changes when an entry comes, goes or moves; not when one is merely refreshed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FdbStats {
    /// Entries in the table.
    pub current: u64,
    /// The most it holds.
    pub maximum: u64,
    /// Those added by hand; 0 before OVS 2.16. OVS over-counts it (ovs-vswitchd evicts static entries too).
    pub static_entries: u64,
    /// Entries ever learned.
    pub learned: u64,
    /// Entries ever removed by age.
    pub expired: u64,
    /// Entries ever removed because the table was full.
    pub evicted: u64,
    /// Entries that ever changed port.
    pub moved: u64,
}

/// What a bridge's OpenFlow tables say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlowTable {
    /// Every frame goes to NORMAL: only flows that match everything, whose only action is NORMAL.
    NormalOnly,
    /// No flow at all: every frame is dropped.
    Empty,
    /// Something else.
    Other {
        /// The first flow that is not plain NORMAL, without its statistics.
        first: String,
        /// How many such flows there are.
        count: usize,
    },
}

/// A client of the command socket. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Unixctl {
    shared: Arc<Connections>,
}

const DUMP_FLOWS: &str = "bridge/dump-flows";
const FDB_SHOW: &str = "fdb/show";

impl Unixctl {
    /// For the ovs-vswitchd whose pid file is in `rundir`. Does not connect yet.
    #[must_use]
    pub fn new(rundir: &Path) -> Self {
        Self::with_time_out(rundir, TIME_OUT)
    }

    /// The same, with another time-out.
    #[must_use]
    pub fn with_time_out(rundir: &Path, time_out: Duration) -> Self {
        Self { shared: Arc::new(Connections::new(rundir, time_out)) }
    }

    /// Runs a command, as `ovs-appctl COMMAND ARGS…` does, and returns what it prints.
    ///
    /// # Errors
    /// Any [`UnixctlError`].
    pub async fn call(&self, command: &str, args: &[&str]) -> Result<String, UnixctlError> {
        let [answer] = self.shared.call_all([(command, args)]).await?;
        Ok(answer)
    }

    /// The daemon's version, and a bridge's flow table and stations, all of the same moment.
    ///
    /// # Errors
    /// Any [`UnixctlError`]; [`UnixctlError::Failed`] when there is no such bridge.
    pub async fn state(&self, bridge: &str) -> Result<(String, FlowTable, Vec<FdbRow>), UnixctlError> {
        let [version, flows, stations] =
            self.shared.call_all([("version", &[]), (DUMP_FLOWS, &[bridge]), (FDB_SHOW, &[bridge])]).await?;
        Ok((
            read("version", &version, text::version)?,
            read(DUMP_FLOWS, &flows, text::flow_table)?,
            read(FDB_SHOW, &stations, text::fdb)?,
        ))
    }

    /// The daemon's version, such as `3.1.0`.
    ///
    /// # Errors
    /// Any [`UnixctlError`].
    pub async fn version(&self) -> Result<String, UnixctlError> {
        self.read("version", &[], text::version).await
    }

    /// The stations a bridge knows, least recently learned first.
    ///
    /// # Errors
    /// Any [`UnixctlError`]; [`UnixctlError::Failed`] when there is no such bridge.
    pub async fn fdb_show(&self, bridge: &str) -> Result<Vec<FdbRow>, UnixctlError> {
        self.read(FDB_SHOW, &[bridge], text::fdb).await
    }

    /// The counters of a bridge's table of stations.
    ///
    /// # Errors
    /// Any [`UnixctlError`]; [`UnixctlError::Failed`] when there is no such bridge.
    pub async fn fdb_stats(&self, bridge: &str) -> Result<FdbStats, UnixctlError> {
        self.read("fdb/stats-show", &[bridge], text::fdb_stats).await
    }

    /// Whether a bridge's flow table is NORMAL and nothing else. Hidden flows count; those of table 254, which
    /// OVS itself puts into every bridge and which frames only reach by way of other flows, do not.
    ///
    /// # Errors
    /// Any [`UnixctlError`]; [`UnixctlError::Failed`] when there is no such bridge.
    pub async fn flow_table(&self, bridge: &str) -> Result<FlowTable, UnixctlError> {
        self.read(DUMP_FLOWS, &[bridge], text::flow_table).await
    }

    async fn read<T>(
        &self,
        command: &str,
        args: &[&str],
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, UnixctlError> {
        let answer = self.call(command, args).await?;
        read(command, &answer, parse)
    }
}

fn read<T>(command: &str, answer: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, UnixctlError> {
    parse(answer).map_err(|detail| UnixctlError::Protocol { command: command.to_owned(), detail })
}
