//! The connections to ovs-vswitchd's command socket: whose turn it is, how long a question may take, and which answer
//! is to which question.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use super::UnixctlError;
use crate::jsonrpc::{Connection, JsonRpcError, Limits, Message};

/// Questions that are asked at a time. The daemon's socket has room for ten new connections
/// (OVS `lib/stream-unix.c`, `punix_open`).
const CONNECTIONS: usize = 8;
/// How many time-outs a question may wait until others have had their answers.
const TURN: u32 = 5;

/// A command and its arguments.
type Command<'c> = (&'c str, &'c [&'c str]);

/// See the module.
#[derive(Debug)]
pub(super) struct Connections {
    rundir: PathBuf,
    time_out: Duration,
    turns: Semaphore,
    /// Connections on which no question is open.
    idle: Mutex<Vec<Open>>,
    /// Told whenever a question had no answer in time.
    overdue: Notify,
}

#[derive(Debug)]
struct Open {
    pid: u32,
    socket: PathBuf,
    connection: Connection<UnixStream>,
    last_id: u64,
}

impl Connections {
    /// Does not connect yet.
    pub(super) fn new(rundir: &Path, time_out: Duration) -> Self {
        Self {
            rundir: rundir.to_path_buf(),
            time_out,
            turns: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            overdue: Notify::new(),
        }
    }

    /// Runs commands in one turn of the daemon's main loop, which takes tens of milliseconds with a thousand ports
    /// (OVS `lib/unixctl.c`, `run_connection`: ten at most).
    pub(super) async fn call_all<const N: usize>(
        &self,
        commands: [Command<'_>; N],
    ) -> Result<[String; N], UnixctlError> {
        let not_asked = || UnixctlError::NotAsked { command: all(&commands) };
        let _turn = self.turn().await.ok_or_else(not_asked)?;
        let after = self.time_out;
        match timeout(after, self.call_in_turn(commands)).await {
            Ok(result) => result,
            Err(_) => {
                self.overdue.notify_waiters();
                Err(UnixctlError::TimedOut { command: all(&commands), after })
            }
        }
    }

    /// Waits until few enough questions are open. Those who wait ask nothing of a daemon that has just failed to
    /// answer in time: the last of them would learn of it only after all others had waited in vain.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            biased;
            () = self.overdue.notified() => None,
            turn = self.turns.acquire() => turn.ok(),
            () = sleep(TURN * self.time_out) => None,
        }
    }

    /// A connection is taken out, and put back after an answer: a call that was given up leaves no late answer for
    /// the next.
    async fn call_in_turn<const N: usize>(
        &self,
        commands: [Command<'_>; N],
    ) -> Result<[String; N], UnixctlError> {
        let pid = self.pid()?;
        if let Some(open) = self.take_idle(pid) {
            match self.call_on(open, commands).await {
                Err(UnixctlError::Stream { .. }) => {}
                answer => return answer,
            }
        }
        self.call_on(self.connect(pid).await?, commands).await
    }

    async fn call_on<const N: usize>(
        &self,
        mut open: Open,
        commands: [Command<'_>; N],
    ) -> Result<[String; N], UnixctlError> {
        let answer = open.call_all(commands).await;
        if !matches!(answer, Err(UnixctlError::Stream { .. })) {
            self.idle().push(open);
        }
        answer
    }

    /// A connection to this daemon. Those to others that were before it are closed.
    fn take_idle(&self, pid: u32) -> Option<Open> {
        let mut idle = self.idle();
        idle.retain(|open| open.pid == pid);
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open>> {
        // Whoever panicked with it left it as it is.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid(&self) -> Result<u32, UnixctlError> {
        let path = self.rundir.join("ovs-vswitchd.pid");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| UnixctlError::NotRunning {
                path,
                cause: io::Error::new(io::ErrorKind::InvalidData, "the file holds no process id"),
            }),
            Err(cause) => Err(cannot_reach(path, cause)),
        }
    }

    async fn connect(&self, pid: u32) -> Result<Open, UnixctlError> {
        let socket = self.rundir.join(format!("ovs-vswitchd.{pid}.ctl"));
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                Ok(Open { pid, socket, connection: Connection::new(stream, Limits::UNIXCTL), last_id: 0 })
            }
            Err(cause) => Err(cannot_reach(socket, cause)),
        }
    }
}

fn cannot_reach(path: PathBuf, cause: io::Error) -> UnixctlError {
    match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            UnixctlError::NotRunning { path, cause }
        }
        _ => UnixctlError::Unreachable { path, cause },
    }
}

impl Open {
    /// The answers, or the first error.
    async fn call_all<const N: usize>(
        &mut self,
        commands: [Command<'_>; N],
    ) -> Result<[String; N], UnixctlError> {
        let exchanged = self.exchange(commands).await;
        let answers = exchanged.map_err(|cause| UnixctlError::Stream { command: all(&commands), cause })?;
        let mut texts = commands.map(|_| String::new());
        for ((text, command), answer) in texts.iter_mut().zip(commands).zip(answers) {
            *text = self.text(command, answer)?;
        }
        Ok(texts)
    }

    fn text(&self, command: Command<'_>, answer: Result<Value, Value>) -> Result<String, UnixctlError> {
        match answer {
            Ok(Value::String(text)) => Ok(text),
            Ok(other) => Err(UnixctlError::Protocol {
                command: command.0.to_owned(),
                detail: format!("{} sent {} where a text belongs", self.socket.display(), kind(&other)),
            }),
            Err(error) => Err(UnixctlError::Failed {
                command: [&[command.0], command.1].concat().join(" "),
                message: error.as_str().map_or_else(|| error.to_string(), |text| text.trim_end().to_owned()),
            }),
        }
    }

    /// All answers, in the order of the commands.
    async fn exchange<const N: usize>(
        &mut self,
        commands: [Command<'_>; N],
    ) -> Result<[Result<Value, Value>; N], JsonRpcError> {
        let requests = commands.map(|(command, args)| {
            self.last_id += 1;
            Message::Request { id: json!(self.last_id), method: command.to_owned(), params: json!(args) }
        });
        self.connection.send_all(&requests).await?;
        let mut answers = commands.map(|_| Ok(Value::Null));
        for (request, answer) in requests.iter().zip(&mut answers) {
            *answer = match (request, self.connection.receive().await?) {
                (Message::Request { id, .. }, Message::Reply { id: answered, result }) if answered == *id => {
                    result
                }
                _ => return Err(JsonRpcError::Shapeless),
            };
        }
        Ok(answers)
    }
}

/// The names of commands, for messages.
fn all(commands: &[Command<'_>]) -> String {
    commands.iter().map(|(command, _)| *command).collect::<Vec<_>>().join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
