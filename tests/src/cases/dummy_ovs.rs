//! A private Open vSwitch with dummy ports, asked through its command socket.
//!
//! It needs no privileges: the devices exist only in ovs-vswitchd. `ofproto/trace` is given the frame's octets, so it
//! goes through Open vSwitch's own parser and is learned from like a frame that arrived.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use trunkline::unixctl::{FdbAge, FdbRow, FlowTable, Unixctl, UnixctlError};
use trunkline_core::Mac;

use super::{Case, MAX_PORTS, hex};
use crate::command::Daemon;
use crate::{output, run, wait_for};

const START_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Programs of one version of Open vSwitch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OvsBinaries {
    /// Directory of the programs, before all others in `PATH`; `None` for those installed.
    directory: Option<PathBuf>,
    version: String,
}

impl OvsBinaries {
    /// Version `wanted`, such as `3.5`: as fetched by `cargo xtask ovs`, or as installed. An error says why not.
    ///
    /// # Errors
    /// It is neither.
    pub fn find(wanted: &str) -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ovs").join(wanted);
        let fetched = root.join("bin").is_dir().then(|| Self::at(Some(root.join("bin")))).flatten();
        let is_wanted = |found: &Self| found.version.starts_with(&format!("{wanted}."));
        fetched.into_iter().chain(Self::at(None)).find(is_wanted).ok_or_else(|| {
            format!("Open vSwitch {wanted} is not here; `cargo xtask ovs {wanted}` fetches it")
        })
    }

    fn at(directory: Option<PathBuf>) -> Option<Self> {
        let mut found = Self { directory, version: String::new() };
        let output = found.command("ovs-vswitchd").arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        found.version = text.lines().next()?.split_once("(Open vSwitch) ")?.1.trim().to_owned();
        Some(found)
    }

    /// The whole version, such as `3.5.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn schema(&self) -> PathBuf {
        let share = match &self.directory {
            Some(directory) => directory.join("../root/usr/share"),
            None => PathBuf::from("/usr/share"),
        };
        share.join("openvswitch/vswitch.ovsschema")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut path = OsString::new();
        if let Some(directory) = &self.directory {
            path.push(directory);
            path.push(":");
        }
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/sbin:/sbin:/usr/lib/openvswitch-switch");
        command.env("PATH", path);
        command
    }
}

/// What Open vSwitch makes of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// `Datapath actions`.
    pub actions: String,
    /// What it learned of it: port number, VLAN and address.
    pub learned: Option<(usize, u16, Mac)>,
    /// Whether it found no such destination.
    pub floods: bool,
    /// All that it said.
    pub text: String,
}

impl Answer {
    /// # Panics
    /// On a text that is not a trace.
    fn read(text: String) -> Self {
        let after = |line: &str, what: &str| line.split_once(what).map(|(_, rest)| rest.trim().to_owned());
        let find = |what: &str| text.lines().find_map(|line| after(line, what));
        let learned = find("-> learned that ").map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [mac, "is", "on", "port", port, "in", "VLAN", vid] = words[..] else { panic!("{line}") };
            let port = port.strip_prefix('p').and_then(|port| port.parse().ok());
            (port.expect("one of our ports"), vid.parse().expect("a VLAN"), mac.parse().expect("an address"))
        });
        let actions = find("Datapath actions:").unwrap_or_else(|| panic!("no actions in {text}"));
        let floods = find("-> no learned MAC for destination, flooding").is_some();
        Self { actions, learned, floods, text }
    }

    /// Whether the frame is sent out of one port.
    pub fn is_unicast(&self) -> bool {
        let ports = self.actions.split(',').filter(|action| action.parse::<u32>().is_ok());
        ports.count() == 1
    }
}

/// The daemons, with a bridge `br0` that always has ports `p1` to `p8`, number 1 to 8.
pub struct DummyOvs {
    // In the order in which they go.
    _vswitchd: Daemon,
    _ovsdb: Daemon,
    directory: TempDir,
    binaries: OvsBinaries,
    unixctl: Unixctl,
    runtime: Runtime,
}

impl DummyOvs {
    /// Starts both daemons.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start(binaries: &OvsBinaries) -> Self {
        let directory = tempfile::Builder::new().prefix("tl").tempdir_in("/tmp").expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let command = |program: &str| environment(binaries.command(program), directory.path());
        run(command("ovsdb-tool").arg("create").arg(path("conf.db")).arg(binaries.schema()));
        let socket = format!("unix:{}", path("db.sock").display());
        let mut ovsdb = command("ovsdb-server");
        ovsdb.arg(path("conf.db")).args([format!("--remote=p{socket}"), "--pidfile".to_owned()]);
        let ovsdb = daemon(ovsdb, &path("ovsdb-server.log"));
        wait_for("ovsdb-server", START_LIMIT, || path("db.sock").exists().then_some(()));
        let mut vswitchd = command("ovs-vswitchd");
        vswitchd.args([&socket, "--enable-dummy=override", "--disable-system", "--no-chdir", "--pidfile"]);
        let vswitchd = daemon(vswitchd, &path("ovs-vswitchd.log"));
        let unixctl = Unixctl::with_time_out(directory.path(), ANSWER_LIMIT);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ovs = Self {
            _vswitchd: vswitchd,
            _ovsdb: ovsdb,
            directory,
            binaries: binaries.clone(),
            unixctl,
            runtime,
        };
        let port = |n| format!("-- add-port br0 p{n} -- set Interface p{n} type=dummy ofport_request={n}");
        let ports: Vec<_> = (1..=MAX_PORTS).map(port).collect();
        ovs.vsctl(&format!("add-br br0 -- set Bridge br0 datapath_type=dummy {}", ports.join(" ")));
        wait_for("ovs-vswitchd", START_LIMIT, || {
            let version = ovs.runtime.block_on(ovs.unixctl.version());
            (version.ok().as_deref() == Some(binaries.version())).then_some(())
        });
        let numbered = ovs.call("dpif/show", &[]);
        for n in 1..=MAX_PORTS {
            assert!(numbered.contains(&format!("p{n} {n}/{n}:")), "p{n} is number {n} in {numbered}");
        }
        let flows = ovs.runtime.block_on(ovs.unixctl.flow_table("br0"));
        assert_eq!(flows.expect("a flow table"), FlowTable::NormalOnly);
        ovs
    }

    /// Gives the bridge the case's settings, and an empty FDB.
    ///
    /// # Panics
    /// When Open vSwitch does not take them.
    pub fn configure(&mut self, case: &Case) {
        self.call("fdb/flush", &["br0"]);
        let fixed: Vec<_> = self.stations().into_iter().filter(|row| row.age == FdbAge::Static).collect();
        // An entry in a VLAN of `flood_vlans` can only be removed when that is no longer one.
        if !fixed.is_empty() {
            self.vsctl("clear Bridge br0 flood_vlans");
        }
        for FdbRow { vid, mac, .. } in fixed {
            self.call("fdb/del", &["br0", &vid.to_string(), &mac.to_string()]);
        }
        self.vsctl(&case.as_columns("br0"));
        assert_eq!(self.stations(), [], "the FDB is empty");
    }

    /// `fdb/add`.
    ///
    /// # Panics
    /// When Open vSwitch refuses.
    pub fn add_station(&mut self, port: usize, vid: u16, mac: &str) {
        self.call("fdb/add", &["br0", &format!("p{port}"), &vid.to_string(), mac]);
    }

    /// `fdb/show`, as the agent reads it.
    ///
    /// # Panics
    /// When that fails.
    pub fn stations(&self) -> Vec<FdbRow> {
        self.answered(self.runtime.block_on(self.unixctl.fdb_show("br0")))
    }

    /// What becomes of a frame that arrives at port `pN`; it is learned from.
    ///
    /// # Panics
    /// When Open vSwitch cannot be asked.
    pub fn trace(&mut self, port: usize, frame: &[u8]) -> Answer {
        Answer::read(self.call("ofproto/trace", &["br0", &format!("in_port={port}"), &hex(frame)]))
    }

    fn call(&self, command: &str, args: &[&str]) -> String {
        self.answered(self.runtime.block_on(self.unixctl.call(command, args)))
    }

    fn answered<T>(&self, answer: Result<T, UnixctlError>) -> T {
        answer.unwrap_or_else(|error| {
            let log = std::fs::read_to_string(self.directory.path().join("ovs-vswitchd.log"));
            panic!("{error}\n{}", log.unwrap_or_default())
        })
    }

    fn vsctl(&self, words: &str) {
        let mut vsctl = environment(self.binaries.command("ovs-vsctl"), self.directory.path());
        vsctl
            .arg(format!("--db=unix:{}", self.directory.path().join("db.sock").display()))
            .arg("--timeout=20");
        let output = output(vsctl.args(words.split_whitespace()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "ovs-vsctl {words}: {said}");
    }
}

fn environment(mut command: Command, directory: &Path) -> Command {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, directory);
    }
    command
}

fn daemon(mut command: Command, log: &Path) -> Daemon {
    command.arg(format!("--log-file={}", log.display()));
    command.args(["-vconsole:off", "-vsyslog:off"]);
    Daemon::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read() {
        let text = "Flow: in_port=1\n 0. priority 0\n    NORMAL\n     -> learned that 02:00:00:00:00:01 is on port p3 in \
                    VLAN 10\n     -> no learned MAC for destination, flooding\n\nDatapath actions: 2,pop_vlan,3";
        let answer = Answer::read(text.to_owned());
        assert_eq!(answer.learned, Some((3, 10, Mac::new([2, 0, 0, 0, 0, 1]))));
        assert_eq!(
            (answer.actions.as_str(), answer.floods, answer.is_unicast()),
            ("2,pop_vlan,3", true, false)
        );
    }
}
