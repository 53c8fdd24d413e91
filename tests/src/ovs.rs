//! A private Open vSwitch: its daemons run inside a network namespace, and its files are in a directory of its own.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::Daemon;
use crate::netns::{Netns, unique_name};
use crate::{output, patience, run, wait_for};

/// A directory of the programs of another version than the installed one, as fetched by `cargo xtask ovs`.
const PROGRAMS: &str = "TRUNKLINE_OVS_BIN";
const START_LIMIT: Duration = Duration::from_secs(20);
/// An ovs-vswitchd before 3.1.1 that starts sooner after the machine finds no CPUs: its kernel datapath then has no
/// handler, and drops what it has no flow for (Open vSwitch b354cee2e0a7).
const CPUS_ARE_COUNTED: Duration = Duration::from_secs(10);

/// How a port takes part in VLANs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vlan {
    /// Untagged in one VLAN.
    Access(u16),
    /// Tagged in these; empty means all.
    Trunk(Vec<u16>),
    /// Trunk whose native VLAN is tagged on the way out.
    NativeTagged(u16, Vec<u16>),
    /// Trunk whose native VLAN is untagged on the way out.
    NativeUntagged(u16, Vec<u16>),
}

impl Vlan {
    /// As `ovs-vsctl` columns.
    pub fn columns(&self) -> Vec<String> {
        let (mode, tag, trunks) = match self {
            Self::Access(tag) => (None, Some(tag), &[][..]),
            Self::Trunk(trunks) => (None, None, &trunks[..]),
            Self::NativeTagged(tag, trunks) => (Some("native-tagged"), Some(tag), &trunks[..]),
            Self::NativeUntagged(tag, trunks) => (Some("native-untagged"), Some(tag), &trunks[..]),
        };
        let list = trunks.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        [mode.map(|mode| format!("vlan_mode={mode}")), tag.map(|tag| format!("tag={tag}"))]
            .into_iter()
            .chain([(!list.is_empty()).then(|| format!("trunks={list}"))])
            .flatten()
            .collect()
    }
}

/// The two daemons and their directory.
#[derive(Debug)]
pub struct Ovs {
    vswitchd: Option<Daemon>,
    ovsdb: Option<Daemon>,
    netns: String,
    directory: TempDir,
}

impl Ovs {
    /// Starts both inside `netns`, and waits until they answer.
    pub fn start(netns: &Netns) -> Self {
        let directory = tempfile::Builder::new().prefix(&unique_name()).rand_bytes(0).tempdir();
        let directory = directory.expect("a directory for Open vSwitch");
        let mut ovs = Self { vswitchd: None, ovsdb: None, netns: netns.name().to_owned(), directory };
        let database = ovs.path("conf.db");
        run(ovs.tool("ovsdb-tool").arg("create").arg(&database).arg(schema()));
        ovs.start_ovsdb(netns);
        // One thread of each kind: the frames of a test are few, and many switches share the machine.
        let threads =
            "set Open_vSwitch . other_config:n-handler-threads=1 other_config:n-revalidator-threads=1";
        ovs.vsctl(&format!("--no-wait init -- {threads}"));
        ovs.start_vswitchd(netns);
        ovs
    }

    /// The directory of its sockets (`OVS_RUNDIR`), logs and database.
    pub fn rundir(&self) -> &Path {
        self.directory.path()
    }

    /// `system` where the kernel has Open vSwitch's datapath, else `netdev`, the one in userspace.
    pub fn datapath_type() -> &'static str {
        if fs::exists("/sys/module/openvswitch").unwrap_or(false) { "system" } else { "netdev" }
    }

    /// `ovs-vsctl` with these words; returns when `ovs-vswitchd` has applied the change.
    ///
    /// # Panics
    /// When it fails.
    pub fn vsctl(&self, words: &str) -> String {
        run(self.tool("ovs-vsctl").arg(timeout()).args(words.split_whitespace()))
    }

    /// `ovs-vsctl` as the first words of a shell's line; it needs this `OVS_RUNDIR`.
    pub(crate) fn vsctl_line(&self) -> String {
        format!("{} {}", program_path("ovs-vsctl"), timeout())
    }

    /// Sets one `tag` after the other on a port, each in a transaction of its own as `ovs-vsctl --no-wait` does
    /// it, but on one connection and so often: a program that starts takes ten times as long as a change.
    ///
    /// # Panics
    /// When one fails.
    pub fn retag(&self, port: &str, tags: impl Iterator<Item = u16>, pause: Duration) {
        let socket = self.path("db.sock");
        let connection = UnixStream::connect(&socket);
        let connection = connection.unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        let mut answers =
            serde_json::Deserializer::from_reader(BufReader::new(&connection)).into_iter::<Value>();
        for tag in tags {
            let update = json!({
                "op": "update", "table": "Port", "where": [["name", "==", port]], "row": { "tag": tag },
            });
            let number = json!({
                "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]],
            });
            let transact = json!(["Open_vSwitch", update, number]);
            let question = json!({ "method": "transact", "params": transact, "id": tag });
            let asked = (&connection).write_all(question.to_string().as_bytes());
            asked.unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
            let answer = answers.next().and_then(Result::ok).unwrap_or_default();
            assert_eq!(
                answer["result"],
                json!([{ "count": 1 }, { "count": 1 }]),
                "tag={tag} of {port}: {answer}"
            );
            thread::sleep(pause);
        }
    }

    /// `ovs-appctl` to `ovs-vswitchd`.
    ///
    /// # Panics
    /// When it fails.
    pub fn appctl(&self, words: &str) -> String {
        run(self.tool("ovs-appctl").arg(timeout()).args(words.split_whitespace()))
    }

    /// `ovs-ofctl`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ofctl(&self, words: &str) -> String {
        run(self.tool("ovs-ofctl").arg(timeout()).args(words.split_whitespace()))
    }

    /// `fdb/show` of a bridge as (port name, VLAN, MAC, age in seconds).
    pub fn fdb(&self, bridge: &str) -> Vec<(String, u16, String, u32)> {
        let ports = self.vsctl("--format=csv --no-headings --columns=ofport,name list Interface");
        let names: Vec<(&str, &str)> = ports.lines().filter_map(|line| line.split_once(',')).collect();
        let name = |number: &str| match names.iter().find(|(ofport, _)| *ofport == number) {
            Some((_, name)) => (*name).to_owned(),
            None if number == "LOCAL" => bridge.to_owned(),
            None => number.to_owned(),
        };
        let row = |line: &str| {
            let mut fields = line.split_whitespace();
            let (port, vlan, mac) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name(port), vlan.parse().ok()?, mac.to_owned(), fields.next()?.parse().ok()?))
        };
        self.appctl(&format!("fdb/show {bridge}")).lines().skip(1).filter_map(row).collect()
    }

    /// Frames that Open vSwitch itself has handled on a bridge: an account of what did *not* take the fast path that
    /// does not depend on the fast path's own counters. Empties the flow cache on the way, which takes late learning
    /// with it: after this, the FDB has seen every frame.
    pub fn frames_handled(&self, bridge: &str) -> u64 {
        self.appctl("revalidator/purge");
        let flows = self.ofctl(&format!("dump-aggregate {bridge}"));
        let count = flows.split_whitespace().find_map(|word| word.strip_prefix("packet_count="));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no packet_count in {flows:?}"))
    }

    /// Stops `ovsdb-server` as an operator does, and starts it again after this time.
    pub fn restart_ovsdb(&mut self, netns: &Netns, after: Duration) {
        stop(self.ovsdb.take());
        thread::sleep(after);
        self.start_ovsdb(netns);
    }

    /// Stops `ovs-vswitchd` as an operator does, and starts it again.
    pub fn restart_vswitchd(&mut self, netns: &Netns) {
        stop(self.vswitchd.take());
        self.start_vswitchd(netns);
    }

    /// Stops both.
    pub fn stop(&mut self) {
        stop(self.vswitchd.take());
        stop(self.ovsdb.take());
    }

    /// Starts both again.
    pub fn start_again(&mut self, netns: &Netns) {
        self.start_ovsdb(netns);
        self.start_vswitchd(netns);
    }

    /// What the daemons logged.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!(
            "--- ovsdb-server\n{}--- ovs-vswitchd\n{}",
            read("ovsdb-server.log"),
            read("ovs-vswitchd.log")
        )
    }

    fn start_ovsdb(&mut self, netns: &Netns) {
        let socket = self.path("db.sock");
        let remote = format!("--remote=punix:{}", socket.display());
        self.ovsdb =
            Some(self.daemon(netns, "ovsdb-server", &[&remote, &self.path("conf.db").to_string_lossy()]));
        wait_for("ovsdb-server", START_LIMIT, || {
            output(self.tool("ovs-appctl").args(["-t", "ovsdb-server", "version"]))
                .status
                .success()
                .then_some(())
        });
    }

    fn start_vswitchd(&mut self, netns: &Netns) {
        thread::sleep(CPUS_ARE_COUNTED.saturating_sub(machine_age()));
        let database = format!("unix:{}", self.path("db.sock").display());
        self.vswitchd = Some(self.daemon(netns, "ovs-vswitchd", &[&database]));
        // The answer to this waits for the configuration to be applied, not only for the process; it would wait for
        // nothing if nothing changed.
        let id = self.vswitchd.as_ref().map_or(0, Daemon::id);
        self.vsctl(&format!("set Open_vSwitch . external_ids:started={id}"));
    }

    fn daemon(&self, netns: &Netns, program: &str, arguments: &[&str]) -> Daemon {
        let mut command = netns.daemon(&program_path(program));
        self.environment(&mut command);
        let pidfile = format!("--pidfile={}", self.path(&format!("{program}.pid")).display());
        let log = format!("--log-file={}", self.path(&format!("{program}.log")).display());
        // What is said before the log is open, and by a crash.
        let stderr = File::create(self.path(&format!("{program}.stderr"))).expect("a file for errors");
        command.args([&pidfile, &log, "-vconsole:off", "-vsyslog:off"]).args(arguments).stderr(stderr);
        Daemon::spawn(&mut command)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, &program_path(program)]);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.rundir());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rundir().join(name)
    }
}

/// By the clock that Open vSwitch reads: since the machine started.
fn machine_age() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    now.try_into().expect("a time after the start")
}

/// For programs that wait for the daemons.
fn timeout() -> String {
    format!("--timeout={}", patience(START_LIMIT).as_secs())
}

fn programs() -> Option<PathBuf> {
    std::env::var_os(PROGRAMS).map(PathBuf::from)
}

fn program_path(name: &str) -> String {
    programs()
        .map_or_else(|| name.to_owned(), |directory| directory.join(name).to_string_lossy().into_owned())
}

fn schema() -> PathBuf {
    let share =
        programs().map_or_else(|| "/usr/share".into(), |directory| directory.join("../root/usr/share"));
    share.join("openvswitch/vswitch.ovsschema")
}

fn stop(daemon: Option<Daemon>) {
    let mut daemon = daemon.expect("the daemon runs");
    daemon.signal(rustix::process::Signal::TERM);
    wait_for("a daemon to end", START_LIMIT, || daemon.status());
}
