//! Network namespaces, devices and a program for the tests.

use std::fs::{self, File};
use std::future::Future;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace that goes with the value.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(label: &str) -> Self {
        let name = format!("tlk-{}-{label}", std::process::id());
        run(&format!("ip netns add {name}"));
        Self(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `test` on a thread of its own inside the namespace, where commands run as well.
    pub(crate) fn run(&self, test: impl Future<Output = ()> + Send) {
        let inside = || {
            let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test);
        };
        thread::scope(|scope| {
            if let Err(panic) = scope.spawn(inside).join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

/// A process in a namespace, which has the namespace's devices in its `/sys`.
pub(crate) struct Inside(Child);

impl Inside {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let mut command = Command::new("ip");
        let child = command.args(["netns", "exec", namespace.name(), "sleep", "600"]).spawn().unwrap();
        let inside = Self(child);
        let name = || fs::read_to_string(format!("/proc/{}/comm", inside.0.id())).unwrap();
        let started = Instant::now();
        while name() != "sleep\n" {
            assert!(started.elapsed() < Duration::from_secs(20), "{} has not become sleep", name());
            thread::sleep(Duration::from_millis(10));
        }
        inside
    }

    /// `/sys/class/net` as it sees it.
    pub(crate) fn class_net(&self) -> PathBuf {
        format!("/proc/{}/root/sys/class/net", self.0.id()).into()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.0]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("network namespace {} is left behind", self.0);
        }
    }
}

/// Runs a command line of plain words.
pub(crate) fn run(line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let output =
        Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    run(&format!("ip {words}"));
}

/// Runs these lines in one `ip`.
pub(crate) fn ip_batch(lines: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip -batch");
}

/// A BPF object with one XDP program `pass` of two instructions, so that no compiler is needed.
pub(crate) fn xdp_object() -> Vec<u8> {
    const NAMES: &[u8] = b"\0xdp\0.symtab\0.strtab\0pass\0";
    const PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x95]; // r0 = XDP_PASS; exit
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let halves = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);

    let program_at = 64;
    let symbols_at = program_at + 16;
    let names_at = symbols_at + 48;
    let sections_at = (names_at + NAMES.len() as u64).next_multiple_of(8);

    let mut object = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_REL, EM_BPF; no segments; four sections, the last holds the names.
    object.extend(words(&[halves(247 << 16 | 1, 1), 0, 0, sections_at]));
    object.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 4, 0, 3, 0]);
    object.extend(words(&PROGRAM));
    // The symbol `pass`: global function in section 1, 16 bytes.
    object.extend(words(&[0, 0, 0, halves(21, 1 << 16 | 0x12), 0, 16]));
    object.extend(NAMES);
    object.resize(sections_at as usize, 0);
    object.extend(words(&[0; 8]));
    // name, type | flags | address | offset | size | link, info | alignment | entry size
    object.extend(words(&[halves(1, 1), 6, 0, program_at, 16, 0, 8, 0]));
    object.extend(words(&[halves(5, 2), 0, 0, symbols_at, 48, halves(3, 1), 8, 24]));
    object.extend(words(&[halves(13, 3), 0, 0, names_at, NAMES.len() as u64, 0, 1, 0]));
    object
}
