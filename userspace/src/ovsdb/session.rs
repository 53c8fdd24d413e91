//! The conversation with ovsdb-server: schema, monitor, updates, echoes; and beginning again after a failure.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::endpoint::Endpoint;
use super::replica::{Replica, ReplicaError, UpdateFormat};
use super::rows::Rows;
use super::schema::Subscription;
use crate::jsonrpc::{Connection, JsonRpcError, Limits, Message};

const DATABASE: &str = "Open_vSwitch";
const MONITOR: &str = "trunkline";
/// A server that says nothing for this long is asked for an echo, and has as long again to say something.
const IDLE: Duration = Duration::from_secs(5);
const CONNECT_TIME_OUT: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// A local socket costs next to nothing to try.
const LONGEST_DELAY_UNIX: Duration = Duration::from_millis(500);
const LONGEST_DELAY_TCP: Duration = Duration::from_secs(5);

/// What happens to the database, in order.
#[derive(Clone, Debug)]
pub enum OvsdbEvent {
    /// A server answered; its complete state follows.
    Connected,
    /// The state after one transaction, or at first the state found.
    Changed(Arc<Rows>),
    /// The server is out of reach. Sent again only when it was reached in between or the cause is another.
    Disconnected {
        /// A sentence for the operator, naming the server.
        cause: String,
    },
}

#[derive(Debug, Error)]
enum SessionError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Stream(#[from] JsonRpcError),
    #[error("the server does not respond")]
    Silent,
    #[error("the server refused {method}: {error}")]
    Refused { method: &'static str, error: String },
    #[error("the server's schema has none of the tables of Open vSwitch")]
    NoTables,
    #[error("the server's answer to {0} is not understood")]
    Answer(&'static str),
    #[error("the server cancelled the subscription")]
    Cancelled,
    #[error("{0}")]
    Update(#[from] ReplicaError),
    /// Nobody listens to the events any more.
    #[error("the receiver of events is gone")]
    ReceiverGone,
}

/// Follows the database at `endpoint` and sends what happens as `wrap(event)`. Returns only when the receiver of
/// `events` is gone. While the receiver does not keep up, the server is not read.
pub async fn run<E>(endpoint: Endpoint, events: Sender<E>, wrap: impl Fn(OvsdbEvent) -> E) {
    let longest_delay = match endpoint {
        Endpoint::Unix(_) => LONGEST_DELAY_UNIX,
        Endpoint::Tcp(_) => LONGEST_DELAY_TCP,
    };
    let outlet = Outlet { events, wrap };
    let mut delay = FIRST_DELAY;
    let mut reported = None;
    loop {
        let mut connected = false;
        let started = Instant::now();
        let error = tokio::select! {
            ended = follow(&endpoint, &outlet, &mut connected) => match ended {
                Err(SessionError::ReceiverGone) => return,
                Err(error) => error,
                Ok(never) => match never {},
            },
            () = outlet.events.closed() => return,
        };
        if connected {
            reported = None;
        }
        // A server that fails right after its dump is no better than one that is out of reach.
        if connected && started.elapsed() > longest_delay {
            delay = FIRST_DELAY;
        }
        let cause = format!("{endpoint}: {error}");
        if reported.as_ref() != Some(&cause) {
            reported = Some(cause.clone());
            if outlet.send(OvsdbEvent::Disconnected { cause }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(delay) => delay = (delay * 2).min(longest_delay),
            () = outlet.events.closed() => return,
        }
    }
}

struct Outlet<E, F> {
    events: Sender<E>,
    wrap: F,
}

impl<E, F: Fn(OvsdbEvent) -> E> Outlet<E, F> {
    async fn send(&self, event: OvsdbEvent) -> Result<(), SessionError> {
        self.events.send((self.wrap)(event)).await.map_err(|_| SessionError::ReceiverGone)
    }
}

/// Returns when the server has sent all its other clients what it had sent to one of them before this began, as far as
/// they read. A server that is out of reach is waited for.
///
/// ovsdb-server serves its clients one after the other: it sends a client what is new for it, takes one request of it,
/// answers, and goes on to the next (OVS `ovsdb/jsonrpc-server.c`, `ovsdb_jsonrpc_session_run`). Between the answers to two
/// requests, the second of which is made after the first answer came, each had its turn.
pub async fn wait_round(endpoint: &Endpoint) {
    while twice_around(endpoint).await.is_err() {
        sleep(FIRST_DELAY).await;
    }
}

async fn twice_around(endpoint: &Endpoint) -> Result<(), SessionError> {
    let mut server = Server::connect(endpoint).await?;
    for _ in 0..2 {
        let answer = server.ask("echo", json!([])).await?;
        answer.map_err(|error| refused("echo", &error))?;
    }
    Ok(())
}

async fn connect<S>(attempt: impl Future<Output = std::io::Result<S>>) -> Result<S, SessionError> {
    let out_of_time = |_| Err(std::io::ErrorKind::TimedOut.into());
    timeout(CONNECT_TIME_OUT, attempt).await.unwrap_or_else(out_of_time).map_err(SessionError::Connect)
}

async fn follow<E, F: Fn(OvsdbEvent) -> E>(
    endpoint: &Endpoint,
    outlet: &Outlet<E, F>,
    connected: &mut bool,
) -> Result<Infallible, SessionError> {
    let mut server = Server::connect(endpoint).await?;
    let schema = server.ask("get_schema", json!([DATABASE])).await?;
    let schema = schema.map_err(|error| refused("get_schema", &error))?;
    let subscription = Subscription::new(&schema);
    if subscription.is_empty() {
        return Err(SessionError::NoTables);
    }
    let mut replica = Replica::new(subscription.clone());
    let dialect = server.monitor(&subscription, &mut replica).await?;
    *connected = true;
    outlet.send(OvsdbEvent::Connected).await?;
    outlet.send(OvsdbEvent::Changed(replica.rows())).await?;
    loop {
        let (method, params) = server.notification().await?;
        if method == dialect.update_method() {
            let updates = params.get(dialect.updates_at()).ok_or(SessionError::Answer(dialect.method()))?;
            replica.apply(dialect.format(), updates)?;
            outlet.send(OvsdbEvent::Changed(replica.rows())).await?;
        } else if method == "monitor_canceled" {
            return Err(SessionError::Cancelled);
        }
    }
}

fn refused(method: &'static str, error: &Value) -> SessionError {
    let details = error.get("details").or_else(|| error.get("error")).unwrap_or(error);
    let error = details.as_str().map_or_else(|| details.to_string(), str::to_owned);
    SessionError::Refused { method, error }
}

/// The three generations of monitor requests, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    /// OVS 2.12. Its transaction identifiers are of no use here: a standalone server has none.
    CondSince,
    /// OVS 2.6.
    Cond,
    /// RFC 7047.
    Plain,
}

impl Dialect {
    const NEWEST_FIRST: [Self; 3] = [Self::CondSince, Self::Cond, Self::Plain];

    const fn method(self) -> &'static str {
        match self {
            Self::CondSince => "monitor_cond_since",
            Self::Cond => "monitor_cond",
            Self::Plain => "monitor",
        }
    }

    const fn update_method(self) -> &'static str {
        match self {
            Self::CondSince => "update3",
            Self::Cond => "update2",
            Self::Plain => "update",
        }
    }

    /// Where in an update message's parameters the updates are.
    const fn updates_at(self) -> usize {
        match self {
            Self::CondSince => 2,
            Self::Cond | Self::Plain => 1,
        }
    }

    const fn format(self) -> UpdateFormat {
        match self {
            Self::CondSince | Self::Cond => UpdateFormat::Differences,
            Self::Plain => UpdateFormat::Rows,
        }
    }

    fn params(self, requests: Value) -> Value {
        match self {
            Self::CondSince => json!([DATABASE, MONITOR, requests, "00000000-0000-0000-0000-000000000000"]),
            Self::Cond | Self::Plain => json!([DATABASE, MONITOR, requests]),
        }
    }

    /// The initial rows in the reply.
    fn dump(self, reply: &Value) -> Option<&Value> {
        match self {
            Self::CondSince => reply.get(2),
            Self::Cond | Self::Plain => Some(reply),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Server {
    connection: Connection<Box<dyn Stream>>,
    last_id: u64,
}

impl Server {
    async fn connect(endpoint: &Endpoint) -> Result<Self, SessionError> {
        let stream: Box<dyn Stream> = match endpoint {
            Endpoint::Unix(path) => Box::new(connect(UnixStream::connect(path)).await?),
            Endpoint::Tcp(host) => {
                let stream = connect(TcpStream::connect(host)).await?;
                stream.set_nodelay(true).map_err(SessionError::Connect)?;
                Box::new(stream)
            }
        };
        Ok(Self { connection: Connection::new(stream, Limits::OVSDB), last_id: 0 })
    }

    /// Subscribes in the newest dialect the server knows and loads the initial rows.
    async fn monitor(
        &mut self,
        subscription: &Subscription,
        replica: &mut Replica,
    ) -> Result<Dialect, SessionError> {
        let mut refusal = SessionError::NoTables;
        for dialect in Dialect::NEWEST_FIRST {
            match self.ask(dialect.method(), dialect.params(subscription.requests())).await? {
                Ok(reply) => {
                    let dump = dialect.dump(&reply).ok_or(SessionError::Answer(dialect.method()))?;
                    replica.apply(dialect.format(), dump)?;
                    return Ok(dialect);
                }
                Err(error) => {
                    let unknown = error == "unknown method" || error["error"] == "unknown method";
                    refusal = refused(dialect.method(), &error);
                    if !unknown {
                        break;
                    }
                }
            }
        }
        Err(refusal)
    }

    /// Sends a request and waits for its reply. No updates can come before the reply to the monitor request.
    async fn ask(&mut self, method: &str, params: Value) -> Result<Result<Value, Value>, SessionError> {
        self.last_id += 1;
        let id = json!(self.last_id);
        let request = Message::Request { id: id.clone(), method: method.to_owned(), params };
        self.send(&request).await?;
        loop {
            match self.receive().await? {
                Message::Reply { id: answered, result } if answered == id => return Ok(result),
                Message::Reply { .. } | Message::Notification { .. } | Message::Request { .. } => {}
            }
        }
    }

    /// A server that does not read is as dead as one that does not write.
    async fn send(&mut self, message: &Message) -> Result<(), SessionError> {
        let sent = timeout(IDLE, self.connection.send(message)).await;
        Ok(sent.map_err(|_| SessionError::Silent)??)
    }

    async fn notification(&mut self) -> Result<(String, Value), SessionError> {
        loop {
            if let Message::Notification { method, params } = self.receive().await? {
                return Ok((method, params));
            }
        }
    }

    /// The next message, echoes answered. Sees to it that a silent server is noticed.
    async fn receive(&mut self) -> Result<Message, SessionError> {
        let mut asked = false;
        loop {
            if let Some(message) = self.connection.received()? {
                match message {
                    Message::Request { id, method, params } if method == "echo" => {
                        self.send(&Message::Reply { id, result: Ok(params) }).await?;
                    }
                    message => return Ok(message),
                }
                continue;
            }
            match timeout(IDLE, self.connection.fill()).await {
                Ok(filled) => {
                    filled?;
                    asked = false;
                }
                Err(_) if asked => return Err(SessionError::Silent),
                Err(_) => {
                    asked = true;
                    let echo =
                        Message::Request { id: json!("echo"), method: "echo".to_owned(), params: json!([]) };
                    self.send(&echo).await?;
                }
            }
        }
    }
}
