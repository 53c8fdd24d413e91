//! Being told at once that a bridge's flow table or port flags changed.
//!
//! Open vSwitch announces neither in its database. [`run`] keeps an OpenFlow 1.0 connection to a bridge's
//! management socket, with a flow monitor on all tables, and reports *that* flows changed (what they are now is
//! for [`Unixctl::flow_table`](crate::unixctl::Unixctl::flow_table) to say) and which flags every port has.
//!
//! The connection is made so that the bridge behaves as if it were not there:
//! - The socket's are service connections: no role, no fail-mode, no in-band flows.
//! - A plain OpenFlow 1.0 connection with controller id 0 makes the bridge send every frame that matches no flow
//!   up to ovs-vswitchd (`update_want_packet_in_on_miss`, OVS `ofproto/connmgr.c`); so it takes another id first.
//! - Service connections get port status only with a non-zero miss length, and would then get packets too; so
//!   those are masked out first. The miss length is set together with the bridge's handling of fragments, which
//!   is therefore read and written back unchanged.
//!
//! OpenFlow 1.0 because it is the only version that tells of `no-flood`. A bridge whose `protocols` column leaves
//! it out refuses the connection: [`OpenFlowEvent::Disconnected`] says so.

mod show;
mod wire;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

pub use show::Shower;
use wire::{Incoming, WireError};

const CHUNK: usize = 16 << 10;
/// How long an answer may take. Time spent waiting for the receiver of events does not count.
const ANSWER: Duration = Duration::from_secs(5);
/// The switch is asked for an echo this long after its last answer.
const ECHO: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// OpenFlow's number of a bridge's own port.
pub const LOCAL: u16 = 0xfffe;

/// What happens to one bridge, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenFlowEvent {
    /// From now on every change is reported. What was before is unknown: ask for the flow table.
    Connected {
        /// The bridge.
        bridge: String,
    },
    /// Some flow was added, modified or removed, maybe several.
    FlowsChanged {
        /// The bridge.
        bridge: String,
    },
    /// The flags of all ports. Sent after [`OpenFlowEvent::Connected`] and when any of it changes.
    PortFlags {
        /// The bridge.
        bridge: String,
        /// By OpenFlow port number, the bridge's own as [`LOCAL`].
        flags: BTreeMap<u16, PortFlags>,
    },
    /// Changes go unnoticed. Sent again only when the bridge was reached in between or the cause is another.
    Disconnected {
        /// The bridge.
        bridge: String,
        /// A sentence for the operator.
        cause: String,
    },
}

/// The flags of a port that `ovs-ofctl mod-port` sets and NORMAL heeds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PortFlags {
    /// The interface's name, cut to 15 bytes.
    pub name: String,
    /// Frames received on the port are dropped.
    pub no_receive: bool,
    /// Frames are not sent to the port.
    pub no_forward: bool,
    /// Frames are not flooded to the port.
    pub no_flood: bool,
}

#[derive(Debug, Error)]
enum OpenFlowError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the bridge closed the connection")]
    Closed,
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error(
        "the bridge refuses OpenFlow 1.0, which its `protocols` column leaves out (add it, or clear the column)"
    )]
    VersionRefused,
    #[error("the bridge refused a request: OpenFlow error type {kind}, code {code}")]
    Refused { kind: u16, code: u16 },
    #[error("the bridge did not answer within {} s", ANSWER.as_secs())]
    TimedOut,
    #[error("the stream is damaged: the bridge answered a question with number {0}, which was not asked")]
    Unasked(u32),
    /// Nobody listens to the events any more.
    #[error("the receiver of events is gone")]
    ReceiverGone,
}

/// Follows `bridge`, whose socket is in `rundir`, and sends what happens as `wrap(event)`. Returns only when the
/// receiver of `events` is gone.
pub async fn run<E>(rundir: PathBuf, bridge: String, events: Sender<E>, wrap: impl Fn(OpenFlowEvent) -> E) {
    let socket = rundir.join(format!("{bridge}.mgmt"));
    let outlet = Outlet { bridge, events, wrap };
    let mut delay = FIRST_DELAY;
    let mut reported = None;
    loop {
        let started = Instant::now();
        let mut connected = false;
        let error = tokio::select! {
            ended = follow(&socket, &outlet, &mut connected) => match ended {
                Err(OpenFlowError::ReceiverGone) => return,
                Err(error) => error,
                Ok(never) => match never {},
            },
            () = outlet.events.closed() => return,
        };
        if connected {
            reported = None;
        }
        if connected && started.elapsed() > LONGEST_DELAY {
            delay = FIRST_DELAY;
        }
        let cause = format!("{}: {error}", socket.display());
        if reported.as_ref() != Some(&cause) {
            reported = Some(cause.clone());
            let gone = |bridge| OpenFlowEvent::Disconnected { bridge, cause };
            if outlet.send(gone).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(delay) => delay = (delay * 2).min(LONGEST_DELAY),
            () = outlet.events.closed() => return,
        }
    }
}

struct Outlet<E, F> {
    bridge: String,
    events: Sender<E>,
    wrap: F,
}

impl<E, F: Fn(OpenFlowEvent) -> E> Outlet<E, F> {
    async fn send(&self, event: impl FnOnce(String) -> OpenFlowEvent) -> Result<(), OpenFlowError> {
        let event = (self.wrap)(event(self.bridge.clone()));
        self.events.send(event).await.map_err(|_| OpenFlowError::ReceiverGone)
    }

    async fn send_ports(&self, ports: &BTreeMap<u16, PortFlags>) -> Result<(), OpenFlowError> {
        self.send(|bridge| OpenFlowEvent::PortFlags { bridge, flags: ports.clone() }).await
    }
}

async fn follow<E, F: Fn(OpenFlowEvent) -> E>(
    socket: &Path,
    outlet: &Outlet<E, F>,
    connected: &mut bool,
) -> Result<Infallible, OpenFlowError> {
    let mut switch = Switch::connect(socket).await?;
    let mut ports = switch.set_up().await?;
    *connected = true;
    outlet.send(|bridge| OpenFlowEvent::Connected { bridge }).await?;
    outlet.send_ports(&ports).await?;
    loop {
        let (mut flows_changed, mut ports_changed) = (false, false);
        // Whatever has arrived is reported together: both events tell a state, not a difference.
        for message in switch.receive().await? {
            match message {
                Incoming::FlowsChanged => flows_changed = true,
                Incoming::PortPut(number, flags) => {
                    ports_changed |= ports.get(&number) != Some(&flags);
                    ports.insert(number, flags);
                }
                Incoming::PortGone(number) => ports_changed |= ports.remove(&number).is_some(),
                Incoming::EchoRequest(reply) => switch.send(&reply).await?,
                Incoming::EchoReply { xid } => switch.answered(xid)?,
                Incoming::Error { kind, code } => return Err(OpenFlowError::Refused { kind, code }),
                Incoming::Config { xid, .. }
                | Incoming::Ports { xid, .. }
                | Incoming::Monitoring { xid }
                | Incoming::Barrier { xid } => {
                    return Err(OpenFlowError::Unasked(xid));
                }
                Incoming::Hello { .. } | Incoming::Other => {}
            }
        }
        if flows_changed {
            outlet.send(|bridge| OpenFlowEvent::FlowsChanged { bridge }).await?;
        }
        if ports_changed {
            outlet.send_ports(&ports).await?;
        }
    }
}

struct Switch {
    stream: UnixStream,
    received: Vec<u8>,
    /// The number of the question that is open.
    open: Option<u32>,
    /// How long the switch has been waited for since the last question or answer.
    waited: Duration,
    next_echo: u32,
}

impl Switch {
    async fn connect(socket: &Path) -> Result<Self, OpenFlowError> {
        let stream = timeout(ANSWER, UnixStream::connect(socket)).await;
        let stream = stream.map_err(|_| OpenFlowError::TimedOut)??;
        let (received, waited) = (Vec::new(), Duration::ZERO);
        Ok(Self { stream, received, open: None, waited, next_echo: wire::FIRST_ECHO_XID })
    }

    /// Says hello, makes the connection harmless, subscribes, and returns the ports.
    async fn set_up(&mut self) -> Result<BTreeMap<u16, PortFlags>, OpenFlowError> {
        self.ask(wire::UNASKED, &[&wire::hello()]).await?;
        let mut ports = BTreeMap::new();
        loop {
            for message in self.receive().await? {
                match message {
                    Incoming::Hello { offers_us: false } => return Err(OpenFlowError::VersionRefused),
                    Incoming::Hello { offers_us: true } => {
                        self.answered(wire::UNASKED)?;
                        let harmless = [wire::set_controller_id(), wire::set_async_config()].concat();
                        self.ask(wire::GET_CONFIG_XID, &[&harmless, &wire::get_config()]).await?;
                    }
                    Incoming::Config { xid, fragments } => {
                        self.answered(xid)?;
                        let set = wire::set_config(fragments);
                        self.ask(wire::MONITOR_XID, &[&set, &wire::monitor_flows()]).await?;
                    }
                    Incoming::Monitoring { xid } => {
                        self.answered(xid)?;
                        self.ask(wire::PORTS_XID, &[&wire::describe_ports()]).await?;
                    }
                    Incoming::Ports { xid, ports: described, more } => {
                        self.answered(xid)?;
                        ports.extend(described);
                        if !more {
                            return Ok(ports);
                        }
                        // The next part has its time as well.
                        self.open = Some(xid);
                    }
                    Incoming::EchoRequest(reply) => self.send(&reply).await?,
                    Incoming::EchoReply { xid } | Incoming::Barrier { xid } => {
                        return Err(OpenFlowError::Unasked(xid));
                    }
                    Incoming::Error { kind, code } => return Err(OpenFlowError::Refused { kind, code }),
                    // Earlier changes are in the description, and the flow table is asked for afterwards.
                    Incoming::PortPut(..)
                    | Incoming::PortGone(_)
                    | Incoming::FlowsChanged
                    | Incoming::Other => {}
                }
            }
        }
    }

    async fn ask(&mut self, xid: u32, messages: &[&[u8]]) -> Result<(), OpenFlowError> {
        self.send(&messages.concat()).await?;
        (self.open, self.waited) = (Some(xid), Duration::ZERO);
        Ok(())
    }

    /// Takes note of an answer, which must be to the question that is open.
    fn answered(&mut self, xid: u32) -> Result<(), OpenFlowError> {
        self.waited = Duration::ZERO;
        self.open.take_if(|open| *open == xid).map(drop).ok_or(OpenFlowError::Unasked(xid))
    }

    /// A switch that does not read is as dead as one that does not write.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), OpenFlowError> {
        let sent = timeout(ANSWER, self.stream.write_all(bytes)).await;
        Ok(sent.map_err(|_| OpenFlowError::TimedOut)??)
    }

    /// All messages that have arrived, at least one. At most 64 KiB of an unfinished one are held. Asks for an echo
    /// when it is time for one and no other question is open.
    async fn receive(&mut self) -> Result<Vec<Incoming>, OpenFlowError> {
        let mut messages = Vec::new();
        loop {
            while let Some(length) = wire::complete_message(&self.received)? {
                messages.push(wire::parse(&self.received[..length])?);
                self.received.drain(..length);
            }
            if !messages.is_empty() {
                return Ok(messages);
            }
            self.received.reserve(CHUNK);
            let limit = if self.open.is_some() { ANSWER } else { ECHO };
            let since = Instant::now();
            // What has already arrived is read even if no time is left.
            let left = limit.saturating_sub(self.waited);
            let read = timeout(left, self.stream.read_buf(&mut self.received)).await;
            self.waited += since.elapsed();
            match read {
                Ok(Ok(0)) => return Err(OpenFlowError::Closed),
                Ok(read) => drop(read?),
                Err(_) if self.open.is_some() => return Err(OpenFlowError::TimedOut),
                Err(_) => {
                    let xid = self.next_echo;
                    self.next_echo = xid.checked_add(1).unwrap_or(wire::FIRST_ECHO_XID);
                    self.ask(xid, &[&wire::echo_request(xid)]).await?;
                }
            }
        }
    }
}
