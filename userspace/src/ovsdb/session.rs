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

use super::dialect::{DATABASE, Dialect, MONITOR};
use super::endpoint::Endpoint;
use super::replica::{Replica, ReplicaError};
use super::rows::Rows;
use super::schema::Subscription;
use crate::jsonrpc::{Connection, JsonRpcError, Limits, Message};

/// How long an answer may take. Time spent waiting for the receiver of events does not count.
const ANSWER: Duration = Duration::from_secs(10);
/// The server is asked for an echo this long after the last question: what was sent before the answer has been read then.
const ECHO: Duration = Duration::from_secs(1);
/// How long that answer may take.
const ECHO_ANSWER: Duration = Duration::from_secs(5);
/// A server that does not read is as dead as one that does not write.
const SEND: Duration = Duration::from_secs(5);
/// A long message that is arriving prolongs the wait for the answer by a second for each so many bytes.
const BYTES_A_SECOND: u64 = 256 << 10;
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
    /// What nobody asked for stands in the place of something else, which is lost.
    #[error("the stream is damaged: the server sent {0}, which it was not asked for")]
    Unasked(String),
    #[error("the server cancelled the subscription")]
    Cancelled,
    #[error("{0}")]
    Update(#[from] ReplicaError),
    /// Nobody listens to the events any more.
    #[error("the receiver of events is gone")]
    ReceiverGone,
}

/// Hears of everything first, on the thread that reads the database.
pub trait Observer {
    /// What is sent of an event.
    type Event;

    /// Hears of an event before it is sent, and returns what is sent of it.
    fn passes(&self, event: OvsdbEvent) -> Self::Event;

    /// Hears that whatever the server had at this moment has been passed.
    fn has_read(&self, as_of: Instant);
}

/// Hears nothing.
impl Observer for () {
    type Event = OvsdbEvent;

    fn passes(&self, event: OvsdbEvent) -> OvsdbEvent {
        event
    }

    fn has_read(&self, _: Instant) {}
}

/// Follows the database at `endpoint` and sends what happens, of which `observer` hears first. Returns only when the receiver
/// of `events` is gone. While the receiver does not keep up, the server is not read.
pub async fn run<O: Observer>(endpoint: Endpoint, events: Sender<O::Event>, observer: O) {
    let longest_delay = match endpoint {
        Endpoint::Unix(_) => LONGEST_DELAY_UNIX,
        Endpoint::Tcp(_) => LONGEST_DELAY_TCP,
    };
    let outlet = Outlet { events, observer };
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

struct Outlet<O: Observer> {
    events: Sender<O::Event>,
    observer: O,
}

impl<O: Observer> Outlet<O> {
    async fn send(&self, event: OvsdbEvent) -> Result<(), SessionError> {
        let event = self.observer.passes(event);
        self.events.send(event).await.map_err(|_| SessionError::ReceiverGone)
    }
}

/// Returns when the server has sent all its other clients what it had sent to one of them before this began, as far as
/// they read. A server that is out of reach is waited for.
///
/// ovsdb-server serves its clients one after the other: it sends a client what is new for it, takes one request of it,
/// answers, and goes on to the next (OVS `ovsdb/jsonrpc-server.c`, `ovsdb_jsonrpc_session_run`). Between the answers to two
/// requests, the second of which is made after the first answer came, each had its turn.
pub async fn barrier(endpoint: &Endpoint) {
    while try_barrier(endpoint).await.is_err() {
        sleep(FIRST_DELAY).await;
    }
}

async fn try_barrier(endpoint: &Endpoint) -> Result<(), SessionError> {
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

async fn follow<O: Observer>(
    endpoint: &Endpoint,
    outlet: &Outlet<O>,
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
    let asked = Instant::now();
    let dialect = server.monitor(&subscription, &mut replica).await?;
    *connected = true;
    outlet.send(OvsdbEvent::Connected).await?;
    outlet.send(OvsdbEvent::Changed(replica.rows())).await?;
    outlet.observer.has_read(asked);
    loop {
        let (method, params) = match server.receive().await? {
            Received::Notification(method, params) => (method, params),
            // The only questions are echoes: all that the server sent before it answered one has been read.
            Received::Answer { asked, .. } => {
                outlet.observer.has_read(asked);
                continue;
            }
        };
        if method == dialect.update_method() && params.get(0).is_some_and(|monitor| monitor == MONITOR) {
            let updates = params.get(dialect.updates_at()).ok_or(SessionError::Answer(dialect.method()))?;
            replica.apply(dialect.format(), updates)?;
            outlet.send(OvsdbEvent::Changed(replica.rows())).await?;
        } else if method == "monitor_canceled" {
            return Err(SessionError::Cancelled);
        } else {
            return Err(SessionError::Unasked(method));
        }
    }
}

fn refused(method: &'static str, error: &Value) -> SessionError {
    let details = error.get("details").or_else(|| error.get("error")).unwrap_or(error);
    let error = details.as_str().map_or_else(|| details.to_string(), str::to_owned);
    SessionError::Refused { method, error }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Server {
    connection: Connection<Box<dyn Stream>>,
    last_id: u64,
    /// The one question that is open, and how long its answer may take.
    open: Option<(Value, Duration)>,
    /// When the last question was asked.
    asked: Instant,
    /// How long the server has been waited for since the last question or answer.
    waited: Duration,
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
        let connection = Connection::new(stream, Limits::OVSDB);
        Ok(Self { connection, last_id: 0, open: None, asked: Instant::now(), waited: Duration::ZERO })
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

    /// Asks a question and waits for the answer. No updates can come before the reply to the monitor request.
    async fn ask(&mut self, method: &str, params: Value) -> Result<Result<Value, Value>, SessionError> {
        self.question(method, params, ANSWER).await?;
        match self.receive().await? {
            Received::Answer { result, .. } => Ok(result),
            Received::Notification(method, _) => Err(SessionError::Unasked(method)),
        }
    }

    async fn question(&mut self, method: &str, params: Value, limit: Duration) -> Result<(), SessionError> {
        self.last_id += 1;
        let (id, asked) = (json!(self.last_id), Instant::now());
        self.send(&Message::Request { id: id.clone(), method: method.to_owned(), params }).await?;
        (self.open, self.asked, self.waited) = (Some((id, limit)), asked, Duration::ZERO);
        Ok(())
    }

    async fn send(&mut self, message: &Message) -> Result<(), SessionError> {
        let sent = timeout(SEND, self.connection.send(message)).await;
        Ok(sent.map_err(|_| SessionError::Silent)??)
    }

    /// The next answer or notification. Asks for an echo when it is time for one and no other question is open.
    async fn receive(&mut self) -> Result<Received, SessionError> {
        loop {
            while let Some(message) = self.connection.received()? {
                if let Some(received) = self.take(message).await? {
                    return Ok(received);
                }
            }
            if self.open.is_none() && self.asked.elapsed() >= ECHO {
                self.question("echo", json!([]), ECHO_ANSWER).await?;
            }
            let limit = match &self.open {
                Some((_, limit)) => {
                    *limit + Duration::from_secs(self.connection.unfinished() as u64 / BYTES_A_SECOND)
                }
                None => ECHO.saturating_sub(self.asked.elapsed()),
            };
            let since = Instant::now();
            // What has already arrived is read even if no time is left.
            let waited = if self.open.is_some() { self.waited } else { Duration::ZERO };
            let filled = timeout(limit.saturating_sub(waited), self.connection.fill()).await;
            self.waited += since.elapsed();
            match filled {
                Ok(filled) => filled?,
                Err(_) if self.open.is_some() => return Err(SessionError::Silent),
                Err(_) => {}
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<Option<Received>, SessionError> {
        match message {
            Message::Request { id, method, params } if method == "echo" => {
                self.send(&Message::Reply { id, result: Ok(params) }).await?;
                Ok(None)
            }
            Message::Request { method, .. } => Err(SessionError::Unasked(method)),
            Message::Notification { method, params } => Ok(Some(Received::Notification(method, params))),
            Message::Reply { id, result } => match self.open.take_if(|(open, _)| *open == id) {
                Some(_) => {
                    self.waited = Duration::ZERO;
                    Ok(Some(Received::Answer { result, asked: self.asked }))
                }
                None => Err(SessionError::Unasked(format!("a reply to {id}"))),
            },
        }
    }
}

/// What the server says of its own accord or when asked.
enum Received {
    Answer { result: Result<Value, Value>, asked: Instant },
    Notification(String, Value),
}
