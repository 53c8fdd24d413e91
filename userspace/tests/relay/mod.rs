//! A relay between a client and a real server that damages what the server says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use trunkline::jsonrpc::{Framer, Limits};

/// What becomes of one message of the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// It is lost.
    Drop,
    /// It has another number.
    ChangeId,
    /// Its second half is lost.
    Cut,
    /// Bytes that belong to no message come before it.
    Junk,
    /// A reply that nobody asked for comes before it.
    Stray,
}

impl Damage {
    pub(crate) const ALL: [Self; 5] = [Self::Drop, Self::ChangeId, Self::Cut, Self::Junk, Self::Stray];
}

/// How messages are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    JsonRpc,
    OpenFlow,
}

/// Which message is damaged.
type Choice = fn(&[u8]) -> bool;

/// Passes everything on but for what is armed.
#[derive(Clone)]
pub(crate) struct Relay {
    armed: Arc<Mutex<Option<(Damage, Choice)>>>,
    protocol: Protocol,
    /// Before each message of the server's.
    delay: Duration,
}

impl Relay {
    /// Listens at `socket` and passes on to and from `server`.
    pub(crate) fn start(protocol: Protocol, socket: &Path, server: PathBuf, delay: Duration) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let relay = Self { armed: Arc::default(), protocol, delay };
        let this = relay.clone();
        tokio::spawn(async move {
            loop {
                let (client, server) =
                    (listener.accept().await.unwrap().0, UnixStream::connect(&server).await);
                // A server that is not there is none for the client either.
                let Ok(server) = server else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(pass_on(from_client, to_server));
                tokio::spawn(this.clone().damage(from_server, to_client));
            }
        });
        relay
    }

    /// Damages the next message of the server's that fits.
    pub(crate) fn arm(&self, damage: Damage, choice: Choice) {
        *self.armed.lock().unwrap() = Some((damage, choice));
    }

    /// Whether the damage has been done.
    pub(crate) fn is_done(&self) -> bool {
        self.armed.lock().unwrap().is_none()
    }

    async fn damage(self, mut server: OwnedReadHalf, mut client: OwnedWriteHalf) {
        let mut messages =
            Messages { protocol: self.protocol, framer: Framer::new(Limits::UNIXCTL), bytes: Vec::new() };
        let mut chunk = vec![0; 64 << 10];
        loop {
            let length = server.read(&mut chunk).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            messages.append(&chunk[..length]);
            let mut arrived = Vec::new();
            while let Some(message) = messages.next() {
                arrived.extend(self.damaged(message));
            }
            tokio::time::sleep(self.delay).await;
            if client.write_all(&arrived).await.is_err() {
                return;
            }
        }
    }

    fn damaged(&self, message: Vec<u8>) -> Vec<u8> {
        let mut armed = self.armed.lock().unwrap();
        let Some((damage, _)) = armed.take_if(|(_, choice)| choice(&message)) else { return message };
        match (damage, self.protocol) {
            (Damage::Drop, _) => Vec::new(),
            (Damage::Cut, _) => message[..message.len() / 2].to_vec(),
            (Damage::Junk, _) => [b"?!\xff junk".to_vec(), message].concat(),
            (Damage::ChangeId, protocol) => with_id(protocol, &message),
            (Damage::Stray, protocol) => [with_id(protocol, &message), message].concat(),
        }
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // Either side may go at any time.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// The same message with a number that was never used.
fn with_id(protocol: Protocol, message: &[u8]) -> Vec<u8> {
    if protocol == Protocol::OpenFlow {
        let mut other = message.to_vec();
        other[4..8].copy_from_slice(&0x7777_7777_u32.to_be_bytes());
        return other;
    }
    let mut value: serde_json::Value = serde_json::from_slice(message).unwrap();
    value["id"] = 777_777.into();
    value.to_string().into_bytes()
}

struct Messages {
    protocol: Protocol,
    framer: Framer,
    bytes: Vec<u8>,
}

impl Messages {
    fn append(&mut self, bytes: &[u8]) {
        match self.protocol {
            Protocol::JsonRpc => self.framer.buffer().extend(bytes),
            Protocol::OpenFlow => self.bytes.extend(bytes),
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.protocol == Protocol::JsonRpc {
            return self.framer.next_object().unwrap().map(<[u8]>::to_vec);
        }
        let length =
            self.bytes.get(2..4).map(|octets| usize::from(octets[0]) << 8 | usize::from(octets[1]))?;
        (self.bytes.len() >= length).then(|| self.bytes.drain(..length).collect())
    }
}
