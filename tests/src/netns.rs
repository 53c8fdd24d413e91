//! Named network namespaces.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, thread};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::{LinkAddress, create_tap};
use crate::wire::Wire;
use crate::{output, run};

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "tl";

/// A network namespace `tl<pid>-<n>`, deleted on drop. IPv6 is off in it, so that the kernel sends nothing by itself.
#[derive(Debug)]
pub struct Netns {
    name: String,
    /// Whether it is ours to delete.
    owned: bool,
}

impl Netns {
    /// A new one.
    ///
    /// # Panics
    /// Without the privilege to make one.
    #[expect(
        clippy::new_without_default,
        reason = "it makes a namespace, which is more than a default value"
    )]
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep_leftovers);
        let name = unique_name();
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name, owned: true };
        netns.enter(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                // Without IPv6 in the kernel there is nothing to switch off.
                fs::write(&path, "1").or_else(ignore_absence).unwrap_or_else(|e| panic!("{path}: {e}"));
            }
        });
        netns
    }

    /// The same one, which stays when this is dropped.
    pub fn share(&self) -> Self {
        Self { name: self.name.clone(), owned: false }
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// `program`, to be run inside and killed with the thread that starts it (not only with this process: a test's
    /// thread ends with the test).
    pub(crate) fn daemon(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command line, split at white space, inside.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        run(self.command(program).args(words))
    }

    /// Calls `work` in a thread inside: what it opens stays inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("{DIRECTORY}/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|e| panic!("entering {path}: {e}"));
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Creates a tap without a virtio header, up; the returned end is the guest's.
    pub fn tap(&self, name: &str) -> Wire {
        let fd = self.enter(|| create_tap(name)).unwrap_or_else(|e| panic!("creating tap {name}: {e}"));
        self.run(&format!("ip link set {name} up"));
        Wire::new(fd)
    }

    /// A packet socket on a device: transmits as the host does, and receives what the host does. Received VLAN tags
    /// are not in the bytes (the kernel keeps them beside).
    pub fn packet_socket(&self, device: &str) -> Wire {
        let open = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // Protocol 0 receives nothing until bound, so nothing of other devices slips in.
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
            bind(&socket, &LinkAddress::all_frames(name_to_index(&socket, device)?))?;
            Ok(socket)
        };
        Wire::new(self.enter(open).unwrap_or_else(|e| panic!("packet socket on {device}: {e}")))
    }

    /// Devices that have an XDP program.
    pub fn devices_with_xdp(&self) -> Vec<String> {
        let links: Vec<serde_json::Value> =
            serde_json::from_str(&self.run("ip -json link show")).expect("ip prints JSON");
        let with_xdp = links.iter().filter(|link| link.get("xdp").is_some());
        with_xdp.filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned {
            let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
        }
    }
}

/// `tl<pid>-<n>`.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn ignore_absence(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Deletes namespaces and directories of runs whose process is gone.
fn sweep_leftovers() {
    for directory in [DIRECTORY.into(), std::env::temp_dir()] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !owner_is_gone(&name) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir_all(entry.path());
            } else {
                output(Command::new("ip").args(["netns", "delete", &name]));
            }
        }
    }
}

/// Whether this is one of our names, of a process that has ended.
fn owner_is_gone(name: &str) -> bool {
    let Some((pid, count)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits(pid) && digits(count) && !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}
