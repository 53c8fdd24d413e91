//! The agent under test, and what its command line says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::command::{Daemon, PAUSE};
use crate::netns::Netns;
use crate::{output, patience, wait_for};

const PROGRAM: &str = "TRUNKLINE_BIN";
const LIMIT: Duration = Duration::from_secs(20);

/// `trunkline status --json`.
#[derive(Clone, Deserialize, Debug)]
pub struct Status {
    /// Everything wanted is in place.
    pub ready: bool,
    /// One for each bridge.
    pub bridges: Vec<BridgeStatus>,
}

/// A bridge in `status`.
#[derive(Clone, Deserialize, Debug)]
pub struct BridgeStatus {
    /// Its name.
    pub name: String,
    /// Whether its frames may take the fast path.
    pub accelerated: bool,
    /// If not, why.
    pub reason: Option<String>,
    /// Its ports.
    pub ports: Vec<PortStatus>,
}

/// A port in `status`.
#[derive(Clone, Deserialize, Debug)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// `xdp-native`, `none` and so on.
    pub hook: String,
    /// Whether it has the fast path.
    pub accelerated: bool,
    /// If not, why.
    pub reason: Option<String>,
    /// As configured; absent means trunk or access by `tag`.
    pub vlan_mode: Option<String>,
    /// As configured.
    pub tag: Option<u16>,
    /// As configured.
    pub trunks: Vec<u16>,
}

/// `trunkline stats --json`.
#[derive(Clone, Deserialize, Debug)]
pub struct Stats {
    /// One for each port.
    pub ports: Vec<PortStats>,
}

/// Counters of a port.
#[derive(Clone, Deserialize, Default, Debug)]
pub struct PortStats {
    /// The bridge.
    pub bridge: String,
    /// The port.
    pub port: String,
    /// Frames that came in.
    pub rx: Received,
    /// Frames that left by the fast path.
    pub tx: Count,
}

/// Frames that came in at a port, by what became of them.
#[derive(Clone, Deserialize, Default, Debug)]
pub struct Received {
    /// By the fast path.
    pub forwarded: Count,
    /// Left to Open vSwitch, by reason.
    pub punted: BTreeMap<String, u64>,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Frames and their octets.
#[derive(Clone, Copy, Deserialize, Default, Debug)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Octets.
    pub bytes: u64,
}

/// A row of `trunkline fdb show --json`.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub struct FdbRow {
    /// The bridge.
    pub bridge: String,
    /// The VLAN.
    pub vlan: u16,
    /// The station.
    pub mac: String,
    /// Where it is.
    pub port: String,
    /// Seconds since it was last seen.
    pub age_s: u64,
}

impl Status {
    /// A port, on whichever bridge.
    pub fn port(&self, name: &str) -> Option<&PortStatus> {
        self.bridges.iter().flat_map(|bridge| &bridge.ports).find(|port| port.name == name)
    }

    /// A bridge.
    pub fn bridge(&self, name: &str) -> Option<&BridgeStatus> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// Whether frames that come in at this port take the fast path.
    pub fn accelerates(&self, port: &str) -> bool {
        let on = |bridge: &BridgeStatus| bridge.ports.iter().any(|p| p.name == port && p.accelerated);
        self.ready && self.bridges.iter().any(|bridge| bridge.accelerated && on(bridge))
    }
}

impl Stats {
    /// The counters of a port; zeros if it has none.
    pub fn port(&self, name: &str) -> PortStats {
        self.ports.iter().find(|port| port.port == name).cloned().unwrap_or_default()
    }
}

/// What the agent may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privileges {
    /// Whatever the test may.
    All,
    /// Without `CAP_SYS_NICE`: no thread of it has real-time priority.
    WithoutSysNice,
}

/// A running `trunkline agent`, and the command line that talks to it.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    run_dir: PathBuf,
    log: PathBuf,
    netns: String,
}

impl Agent {
    /// The program under test, from `TRUNKLINE_BIN`; `None` if that is `none`: then the tests run with Open vSwitch
    /// alone on both sides, which checks the rig.
    ///
    /// # Panics
    /// Without the variable: a test that compares nothing must not pass unnoticed.
    pub fn program() -> Option<PathBuf> {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| {
            panic!("set {PROGRAM} to the trunkline binary, or to \"none\" to check the rig with Open vSwitch alone")
        });
        (program != "none")
            .then(|| fs::canonicalize(&program).unwrap_or_else(|e| panic!("{PROGRAM}={program:?}: {e}")))
    }

    /// Starts the agent inside `netns`. `None` when there is no program under test.
    pub fn start(netns: &Netns, ovs_rundir: &Path) -> Option<Self> {
        Self::start_with(Privileges::All, &[], netns, ovs_rundir)
    }

    /// The same, with such privileges, and these variables in its environment.
    pub fn start_with(
        privileges: Privileges,
        environment: &[(&str, &str)],
        netns: &Netns,
        ovs_rundir: &Path,
    ) -> Option<Self> {
        let program = Self::program()?;
        let run_dir = ovs_rundir.join("trunkline");
        let log = ovs_rundir.join("trunkline.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let program = program.to_string_lossy();
        let mut command = match privileges {
            Privileges::All => netns.daemon(&program),
            Privileges::WithoutSysNice => {
                let mut command = netns.daemon("setpriv");
                command.args(["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", &program]);
                command
            }
        };
        command.arg("agent").arg("--ovs-rundir").arg(ovs_rundir).arg("--run-dir").arg(&run_dir);
        command.envs(environment.iter().copied());
        command.stdout(file.try_clone().expect("a second descriptor")).stderr(file);
        let daemon = Daemon::spawn(&mut command);
        Some(Self { daemon, run_dir, log, netns: netns.name().to_owned() })
    }

    /// `trunkline` with these words, for this agent.
    pub fn cli(&self, words: &str) -> Output {
        let program = Self::program().expect("an agent has a program");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program).args(words.split_whitespace());
        output(command.arg("--run-dir").arg(&self.run_dir))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The directory of its control socket.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its status, once it can be asked.
    pub fn try_status(&self) -> Option<Status> {
        let said = self.cli("status --json");
        said.status.success().then(|| parse("status", &said.stdout))
    }

    /// Its status.
    ///
    /// # Panics
    /// When the command fails.
    pub fn status(&self) -> Status {
        self.json("status --json")
    }

    /// Its counters.
    ///
    /// # Panics
    /// When the command fails.
    pub fn stats(&self) -> Stats {
        self.json("stats --json")
    }

    /// Its forwarding database.
    ///
    /// # Panics
    /// When the command fails.
    pub fn fdb(&self) -> Vec<FdbRow> {
        self.json("fdb show --json")
    }

    /// Waits for a status that satisfies `wanted`.
    ///
    /// # Panics
    /// After 20 s (with [`patience`]), with the last status and the log, or at once if the agent has ended.
    pub fn wait_status(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = std::time::Instant::now() + patience(LIMIT);
        loop {
            let status = self.try_status();
            if let Some(status) = &status
                && wanted(status)
            {
                return status.clone();
            }
            let ended = self.daemon.status();
            if ended.is_some() || std::time::Instant::now() > deadline {
                let log = self.log();
                panic!("waited for {what}; agent ended: {ended:?}; status: {status:#?}\n--- agent\n{log}");
            }
            std::thread::sleep(patience(PAUSE));
        }
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Panics
    /// When it does not exit with 0 in time.
    pub fn stop(mut self) {
        self.daemon.signal(Signal::TERM);
        let status = wait_for("the agent to end", LIMIT, || self.daemon.status());
        assert!(status.success(), "the agent ended with {status}\n--- agent\n{}", self.log());
    }

    /// Moves all its threads to one processor, where the first comes before the others, but for those with
    /// real-time priority. Which goes on first is then no matter of luck.
    ///
    /// # Panics
    /// When there is no such processor for it.
    pub fn confine(&self, processor: usize) {
        let mut only = CpuSet::new();
        only.set(processor);
        let path = format!("/proc/{}/task", self.pid());
        for thread in fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).flatten() {
            let name = thread.file_name().to_string_lossy().into_owned();
            let id = name.parse().ok().and_then(Pid::from_raw);
            let moved = sched_setaffinity(id, &only);
            assert!(moved.is_ok(), "moving thread {name} to processor {processor}: {moved:?}");
            if name != self.pid().to_string() {
                let last = setpriority_process(id, 19);
                assert!(last.is_ok(), "putting thread {name} behind the others: {last:?}");
            }
        }
    }

    /// SIGSTOP: it does nothing until [`Self::resume`].
    pub fn pause(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it still runs after this time (with [`patience`]).
    pub fn wait_end(&mut self, limit: Duration) -> std::process::ExitStatus {
        wait_for("the agent to end", limit, || self.daemon.status())
    }

    /// SIGKILL. What the agent installed stays as it is, and the command line can still be used.
    pub fn kill9(&mut self) {
        self.daemon.kill();
    }

    fn json<T: DeserializeOwned>(&self, words: &str) -> T {
        let said = self.cli(words);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.status.success(),
            "trunkline {words}: {}\n{stderr}\n--- agent\n{}",
            said.status,
            self.log()
        );
        parse(words, &said.stdout)
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> T {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("trunkline {what}: {error} in {}", String::from_utf8_lossy(bytes)))
}
