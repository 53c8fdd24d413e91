//! Running programs, and waiting with a deadline.

use std::process::{Child, ChildStdin, ChildStdout, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::patience;

/// Between two questions: whoever is waited for needs the processor.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Runs to the end and returns standard output.
///
/// # Panics
/// When the program cannot be started or fails; the message has the command and what it said.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{command:?}: {}\n{stdout}{stderr}", output.status);
    }
    stdout
}

/// Runs to the end, whatever the exit status.
///
/// # Panics
/// When the program cannot be started.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Asks `probe` every 20 ms until it answers; both times with [`patience`].
///
/// # Panics
/// After `limit`, with `what` was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(patience(PAUSE));
    }
}

/// A process that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its stdin and stdout, of one that was given pipes.
    pub(crate) fn take_pipes(&mut self) -> (ChildStdin, ChildStdout) {
        self.0.stdin.take().zip(self.0.stdout.take()).expect("pipes")
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The exit status, once it has ended.
    pub(crate) fn status(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().unwrap_or_else(|error| panic!("waiting for process {}: {error}", self.id()))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let sent = kill_process(Pid::from_child(&self.0), signal);
        assert!(sent.is_ok(), "sending {signal:?} to process {}: {sent:?}", self.id());
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
