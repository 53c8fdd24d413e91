//! A private Open vSwitch: database, daemons and sockets in a temporary directory, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// Both daemons, with dummy devices instead of the host's.
pub(crate) struct PrivateOvs {
    dir: TempDir,
    server: Daemon,
    vswitchd: Option<Daemon>,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl PrivateOvs {
    /// Starts a server with an empty database, and ovs-vswitchd with a bridge `br0` that has the dummy ports `p1`
    /// (OpenFlow port 1, access VLAN 10) and `p2` (2, trunk).
    pub(crate) fn with_bridge() -> Self {
        let mut ovs = Self::start();
        ovs.start_vswitchd();
        let dummy = |name: &'static str, number: &'static str| {
            ["--", "add-port", "br0", name, "--", "set", "interface", name, "type=dummy", number].to_vec()
        };
        let bridge = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy"];
        let parts = [bridge, dummy("p1", "ofport_request=1"), dummy("p2", "ofport_request=2")];
        ovs.vsctl(&parts.concat());
        ovs.vsctl(&["set", "port", "p1", "tag=10"]);
        ovs
    }

    /// Starts a server with an empty database, and nothing else.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tl").tempdir_in("/tmp").unwrap();
        let schema = share().join("openvswitch/vswitch.ovsschema");
        run(command("ovsdb-tool", dir.path()).arg("create").arg(dir.path().join("conf.db")).arg(schema));
        let server = spawn_server(dir.path());
        let ovs = Self { dir, server, vswitchd: None };
        // The version is what Open vSwitch's start-up scripts write.
        ovs.vsctl(&["--no-wait", "init", "--", "set", "Open_vSwitch", ".", "ovs_version=3.1.0"]);
        ovs
    }

    /// What ovs-vswitchd has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("vswitchd.log")).unwrap()
    }

    /// The log as soon as it has this text: ovs-vswitchd writes it a little later.
    pub(crate) fn log_with(&self, text: &str) -> String {
        wait_until(text, || self.log().contains(text));
        self.log()
    }

    pub(crate) fn rundir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    pub(crate) fn start_vswitchd(&mut self) {
        let daemon = command("ovs-vswitchd", self.dir.path());
        self.spawn_vswitchd(daemon, None);
    }

    /// Starts it as the first process of a namespace, as a container does, so that its number is 1 every time. Needs
    /// root.
    pub(crate) fn start_vswitchd_as_first(&mut self) {
        let mut daemon = command("unshare", self.dir.path());
        daemon.args(["--pid", "--fork", "--kill-child", "ovs-vswitchd"]);
        self.spawn_vswitchd(daemon, Some(1));
    }

    fn spawn_vswitchd(&mut self, mut daemon: Command, pid: Option<u32>) {
        let log = self.dir.path().join("vswitchd.log");
        daemon.arg(format!("unix:{}", self.socket().display()));
        daemon.args(["--enable-dummy=override", "--disable-system", "--no-chdir", "--pidfile"]);
        daemon.arg(format!("--log-file={}", log.display()));
        let daemon = spawn(daemon);
        let pid = pid.unwrap_or(daemon.0.id()).to_string();
        let control = self.dir.path().join(format!("ovs-vswitchd.{pid}.ctl"));
        let pidfile = self.dir.path().join("ovs-vswitchd.pid");
        wait_until("ovs-vswitchd's command socket", || {
            let written = std::fs::read_to_string(&pidfile).is_ok_and(|text| text.trim() == pid);
            written && std::os::unix::net::UnixStream::connect(&control).is_ok()
        });
        self.vswitchd = Some(daemon);
    }

    /// Kills it, so that it leaves its pid file behind.
    pub(crate) fn stop_vswitchd(&mut self) {
        self.vswitchd = None;
        // In a namespace it ends a moment after the process that made the namespace.
        let pid = std::fs::read_to_string(self.dir.path().join("ovs-vswitchd.pid")).unwrap();
        let control = self.dir.path().join(format!("ovs-vswitchd.{}.ctl", pid.trim()));
        wait_until("ovs-vswitchd's end", || std::os::unix::net::UnixStream::connect(&control).is_err());
    }

    pub(crate) fn signal_vswitchd(&self, signal: Signal) {
        let daemon = self.vswitchd.as_ref().expect("it runs");
        rustix::process::kill_process(Pid::from_child(&daemon.0), signal).unwrap();
    }

    pub(crate) fn restart_server(&mut self) {
        let _ = self.server.0.kill();
        let _ = self.server.0.wait();
        std::fs::remove_file(self.socket()).unwrap();
        self.server = spawn_server(self.dir.path());
    }

    pub(crate) fn vsctl(&self, args: &[&str]) -> String {
        let database = format!("--db=unix:{}", self.socket().display());
        run(command("ovs-vsctl", self.dir.path()).args([&database, "--timeout=20"]).args(args))
    }

    pub(crate) fn appctl(&self, args: &[&str]) -> String {
        run(command("ovs-appctl", self.dir.path()).args(args))
    }

    pub(crate) fn ofctl(&self, args: &[&str]) -> String {
        run(command("ovs-ofctl", self.dir.path()).args(args))
    }
}

fn spawn_server(dir: &Path) -> Daemon {
    let socket = dir.join("db.sock");
    let mut server = command("ovsdb-server", dir);
    server.arg(dir.join("conf.db")).arg(format!("--remote=punix:{}", socket.display()));
    server.arg(format!("--unixctl={}", dir.join("server.ctl").display()));
    server.arg(format!("--log-file={}", dir.join("server.log").display()));
    let server = spawn(server);
    wait_until("ovsdb-server's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    server
}

/// Where another version's programs are, as `cargo xtask ovs` lays them out; else it is the installed ones.
fn programs() -> Option<PathBuf> {
    std::env::var_os("TRUNKLINE_OVS_BIN").map(PathBuf::from)
}

fn share() -> PathBuf {
    programs().map_or_else(|| PathBuf::from("/usr/share"), |programs| programs.join("../root/usr/share"))
}

fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    let fetched = programs().map(|programs| format!("{}:", programs.display())).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{fetched}{path}:/usr/sbin:/sbin:/usr/lib/openvswitch-switch"));
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_LOGDIR"] {
        command.env(variable, dir);
    }
    command
}

fn spawn(mut command: Command) -> Daemon {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Daemon(command.spawn().unwrap_or_else(|error| panic!("{}", not_run(&command, &error))))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{}", not_run(command, &error)));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn not_run(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().display();
    format!("cannot run {program}: {error}; these tests need Open vSwitch: install openvswitch-switch")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited for {what}");
        sleep(Duration::from_millis(10));
    }
}
