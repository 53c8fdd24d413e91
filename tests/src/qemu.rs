//! A guest of QEMU's: virtio-net on a tap that QEMU makes, a kernel of its own, and a shell at its second serial port.
//!
//! The kernel and what it boots into are not the rig's: `cargo xtask test qemu` makes them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::command::Daemon;
use crate::guest_counters::csum_errors_of_tables;
use crate::qemu_scripts::QemuScripts;
use crate::{Switch, patience, wait_for};

/// A file with the first of QEMU's arguments, one on each line.
const VARIABLE: &str = "TRUNKLINE_QEMU_GUEST";
const PROGRAM: &str = "qemu-system-x86_64";
const MEMORY_MIB: &str = "128";

/// How often a guest is started that ends before it is ready: the kernel of an emulated one now and then panics in its
/// first second.
const ATTEMPTS: usize = 3;

// With `patience`.

/// An emulated guest takes five seconds on an idle machine of today.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What the guest's device and its tap can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtioNet {
    /// `vnet_hdr=off`: whole frames with finished checksums, and nothing else is possible.
    Bare,
    /// With a header, but nothing in it: for a switch that does not finish checksums.
    HeaderOnly,
    /// QEMU's defaults: partial checksums and super-frames.
    Offloads,
}

impl VirtioNet {
    /// For `-netdev` and for `-device`.
    fn options(self) -> (&'static str, &'static str) {
        match self {
            Self::Bare => (",vnet_hdr=off", ""),
            Self::HeaderOnly => (
                ",vnet_hdr=on",
                ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,guest_csum=off,guest_tso4=off,\
                 guest_tso6=off,guest_ecn=off,guest_ufo=off",
            ),
            Self::Offloads => (",vnet_hdr=on", ""),
        }
    }
}

/// A running guest.
#[derive(Debug)]
pub struct Qemu {
    tap: String,
    console: PathBuf,
    errors: PathBuf,
    line: Command,
    process: Process,
}

#[derive(Debug)]
struct Process {
    orders: ChildStdin,
    answers: Receiver<String>,
    daemon: Daemon,
}

impl Qemu {
    /// Whether there is a guest to be booted.
    pub fn is_at_hand() -> bool {
        std::env::var_os(VARIABLE).is_some()
    }

    /// Starts a guest on a new tap in the switch's namespace, which the scripts make a port of it; `number` (1 to 255)
    /// is in its MAC. Returns at once; the guest boots.
    ///
    /// # Panics
    /// When QEMU or what the guest boots is not there.
    pub fn start(switch: &Switch, tap: &str, number: u8, device: VirtioNet, scripts: &QemuScripts) -> Self {
        let path = std::env::var_os(VARIABLE).unwrap_or_else(|| panic!("{VARIABLE} is not set"));
        let arguments = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{VARIABLE}={path:?}: {e}"));
        let file = |what: &str| switch.ovs().rundir().join(format!("{tap}.{what}"));
        let (console, errors) = (file("console"), file("qemu"));
        let (netdev, nic) = device.options();
        let (up, down) = (scripts.up.display(), scripts.down.display());
        let mut line = switch.netns().daemon(PROGRAM);
        line.args(arguments.lines()).args(["-m", MEMORY_MIB]);
        line.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        line.arg("-netdev").arg(format!("tap,id=net,ifname={tap},script={up},downscript={down}{netdev}"));
        // Nobody boots from the network.
        line.arg("-device")
            .arg(format!("virtio-net-pci,netdev=net,mac=52:54:00:00:00:{number:02x},romfile={nic}"));
        line.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        line.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&errors).expect("a file"));
        let process = Process::start(&mut line);
        Self { tap: tap.to_owned(), console, errors, line, process }
    }

    /// Waits until the guest has booted.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_ready(&mut self) {
        let mut attempt = 1;
        loop {
            match self.process.answers.recv_timeout(patience(BOOT_LIMIT)) {
                Ok(word) if word == "ready" => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) if attempt < ATTEMPTS => {
                    eprintln!(
                        "guest {} ended before it was ready: starting it again\n{}",
                        self.tap,
                        self.said()
                    );
                    self.process.daemon.kill();
                    self.process = Process::start(&mut self.line);
                    attempt += 1;
                }
                Err(error) => panic!("guest {} does not boot: {error}\n{}", self.tap, self.said()),
            }
        }
    }

    /// Runs a line of shell in the guest, and returns what it printed.
    ///
    /// # Errors
    /// What it printed, when it fails.
    ///
    /// # Panics
    /// When the guest does not answer.
    pub fn sh(&mut self, line: &str) -> Result<String, String> {
        let told = writeln!(self.process.orders, "{line}");
        told.unwrap_or_else(|error| panic!("guest {} takes no orders: {error}", self.tap));
        let mut printed = String::new();
        loop {
            let answer = self.process.answers.recv_timeout(patience(COMMAND_LIMIT));
            let answer =
                answer.unwrap_or_else(|error| panic!("guest {}: {line}: {error}\n{}", self.tap, self.said()));
            match answer.strip_prefix("status ") {
                Some("0") => return Ok(printed),
                Some(status) => return Err(format!("{}: {line}: status {status}\n{printed}", self.tap)),
                None => printed = printed + &answer + "\n",
            }
        }
    }

    /// Packets with a wrong checksum that its kernel has received, of any protocol over IPv4.
    pub fn checksum_errors(&mut self) -> u64 {
        csum_errors_of_tables(&self.sh("cat /proc/net/snmp /proc/net/netstat").expect("the guest's counters"))
    }

    /// The guest powers itself off, and QEMU ends.
    ///
    /// # Panics
    /// When it does not, or fails.
    pub fn power_off(mut self) {
        writeln!(self.process.orders, "poweroff -f").expect("the guest takes orders");
        let status = wait_for("QEMU to end", COMMAND_LIMIT, || self.process.daemon.status());
        assert!(status.success(), "QEMU of {} ended with {status}: {}", self.tap, self.said());
    }

    /// What QEMU and the guest's kernel have to say.
    fn said(&self) -> String {
        let read = |path| fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&[read(&self.errors), read(&self.console)].concat()).into_owned()
    }
}

impl Process {
    fn start(line: &mut Command) -> Self {
        let mut daemon = Daemon::spawn(line);
        let (orders, pipe) = daemon.take_pipes();
        let (send, answers) = mpsc::channel();
        // Ends with QEMU, or when nobody is left to be told.
        thread::spawn(move || {
            let mut lines = BufReader::new(pipe).lines().map_while(Result::ok);
            lines.try_for_each(|text| send.send(text.trim_end().to_owned()))
        });
        Self { orders, answers, daemon }
    }
}
