//! The control socket: how the command line talks to a running agent.
//!
//! One request and one reply a connection, each a line of JSON. The socket is for its owner alone (0600); a client that
//! sends too much, nothing, or nonsense is answered or dropped, and costs at most a bounded amount of memory and time.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::warn;

/// Longest request in octets: a jumbo frame in hexadecimal, with room.
pub(crate) const LONGEST_REQUEST: u64 = 64 * 1024;
/// Longest time a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients served at a time.
const CLIENTS: usize = 16;

/// What a client can ask.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// [`crate::report::Status`]
    Status,
    /// A list of [`crate::report::FdbStation`]
    FdbShow,
    /// The number of stations forgotten.
    FdbFlush {
        /// Of this bridge only.
        bridge: Option<String>,
        /// On this port only.
        port: Option<String>,
        /// In this VLAN only.
        vlan: Option<u16>,
    },
    /// [`crate::report::Stats`]
    Stats,
    /// [`crate::report::TraceReport`]
    Trace {
        /// The ingress port.
        port: String,
        /// The frame in hexadecimal.
        frame: String,
        /// Ask Open vSwitch the same.
        #[serde(default)]
        compare: bool,
    },
    /// Give every port back to Open vSwitch and end.
    Detach,
}

/// What the agent answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The document asked for.
    Ok(Value),
    /// A sentence for people.
    Error(String),
}

/// A request on its way to the agent, and the way back.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Binds the socket, in place of one that a dead agent left behind.
///
/// # Errors
/// The directory is not writable, or the path too long.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made private before anyone can connect to it.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// Serves clients until the agent's end of `calls` is gone.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = std::sync::Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // A client that goes away or dawdles is its own affair.
                    let _ = tokio::time::timeout(PATIENCE, serve_client(stream, calls)).await;
                });
            }
            Err(error) => {
                warn!(%error, "control socket: a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(mut stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    BufReader::new(reader.take(LONGEST_REQUEST)).read_until(b'\n', &mut line).await?;
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => ask(request, &calls).await,
        Err(error) => Reply::Error(format!("this is no request: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
}

async fn ask(request: Request, calls: &mpsc::Sender<Call>) -> Reply {
    let (reply, answer) = oneshot::channel();
    let ended = || Reply::Error("the agent is ending".to_owned());
    if calls.send(Call { request, reply }).await.is_err() {
        return ended();
    }
    answer.await.unwrap_or_else(|_| ended())
}

/// Asks the agent behind the socket at `path`.
///
/// # Errors
/// No agent runs there, it did not answer in time, or it said no.
pub async fn request(path: &Path, request: &Request) -> anyhow::Result<Value> {
    use anyhow::{Context as _, anyhow, bail};
    let stream = UnixStream::connect(path).await.with_context(|| {
        format!(
            "no agent answers at {}: start it with `trunkline agent`, or name its directory with --run-dir",
            path.display()
        )
    })?;
    let exchange = async {
        let (reader, mut writer) = stream.into_split();
        writer.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
        let mut text = Vec::new();
        BufReader::new(reader).read_until(b'\n', &mut text).await?;
        anyhow::Ok(text)
    };
    let text = tokio::time::timeout(2 * PATIENCE, exchange)
        .await
        .map_err(|_| anyhow!("the agent at {} did not answer in time", path.display()))??;
    match serde_json::from_slice(&text)
        .with_context(|| format!("the agent at {} broke off", path.display()))?
    {
        Reply::Ok(value) => Ok(value),
        Reply::Error(error) => bail!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn socket() -> (tempfile::TempDir, std::path::PathBuf, mpsc::Receiver<Call>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (calls, receiver) = mpsc::channel(1);
        tokio::spawn(serve(bind(&path).unwrap(), calls));
        (directory, path, receiver)
    }

    async fn send(path: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // A server that has read enough may close before all is written.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn a_request_is_answered() {
        let (_directory, path, mut calls) = socket().await;
        tokio::spawn(async move {
            let call = calls.recv().await.unwrap();
            assert_eq!(call.request, Request::Status);
            call.reply.send(Reply::Ok(json!({"ready": true}))).unwrap();
        });
        assert_eq!(request(&path, &Request::Status).await.unwrap(), json!({"ready": true}));
    }

    #[tokio::test]
    async fn garbage_is_refused_and_the_next_client_is_served() {
        let (_directory, path, mut calls) = socket().await;
        for garbage in
            [&b"\0\xff\xfe\n"[..], b"{}\n", b"{\"command\":\"boil\"}\n", b"", b"[[[[", &[b'x'; 200_000]]
        {
            let answer = send(&path, garbage).await;
            assert!(answer.is_empty() || answer.contains("no request"), "{answer}");
        }
        tokio::spawn(async move { calls.recv().await.unwrap().reply.send(Reply::Ok(json!(1))) });
        assert_eq!(request(&path, &Request::Stats).await.unwrap(), json!(1));
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_and_replaces_a_stale_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_directory, path, _calls) = socket().await;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn without_an_agent_the_error_names_the_socket_and_the_next_step() {
        let error = request(Path::new("/nowhere/control.sock"), &Request::Status).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("/nowhere/control.sock") && text.contains("trunkline agent"), "{text}");
    }
}
