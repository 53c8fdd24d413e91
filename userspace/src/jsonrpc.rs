//! JSON-RPC 1.0 over a byte stream, as ovsdb-server and ovs-vswitchd's unixctl socket speak it.
//!
//! Messages are JSON objects written one after the other, without any framing. [`Framer`] finds where
//! each one ends by looking at every byte once, however the bytes are cut into chunks, and serde reads
//! the finished message. [`Connection`] is that over any asynchronous stream.
//!
//! It guarantees that a peer can neither make it panic nor make it hold more than
//! [`Limits::message`] bytes of one unfinished message. It refuses: anything but an object at top
//! level, messages beyond the limits, and JSON-RPC 2.0's batches.

use std::io;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much a peer may send before it is taken for broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one message.
    pub message: usize,
    /// Objects and arrays open at the same time.
    pub depth: u32,
}

impl Limits {
    /// For OVSDB. A parsed value takes up to some thirty times its text, and a bridge port about a kilobyte
    /// of text: this is room for tens of thousands of ports.
    pub const OVSDB: Self = Self { message: 64 << 20, depth: 64 };
    /// For unixctl, whose replies are one long string: a dump of a million flows fits.
    pub const UNIXCTL: Self = Self { message: 256 << 20, depth: 16 };
}

/// What can go wrong on a JSON-RPC stream. The stream is of no further use after any of them.
#[derive(Debug, Error)]
pub enum JsonRpcError {
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer closed the stream.
    #[error("the peer closed the connection")]
    Closed,
    /// A message outgrew [`Limits::message`].
    #[error("the peer sent a message of more than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A message outgrew [`Limits::depth`].
    #[error("the peer sent JSON nested more than {limit} levels deep")]
    TooDeep {
        /// The limit, in levels.
        limit: u32,
    },
    /// A byte where no JSON object can begin.
    #[error("the peer does not speak JSON-RPC: a message begins with byte {0:#04x}")]
    NotAnObject(u8),
    /// An object that is not JSON, or not JSON-RPC.
    #[error("the peer sent a malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// JSON, but neither a request nor a reply.
    #[error("the peer sent a message that is neither a request nor a reply")]
    Shapeless,
}

/// One message. Identifiers are whatever the requester chose.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// A call that wants a [`Message::Reply`] with the same `id`.
    Request {
        /// Never null.
        id: Value,
        /// The procedure.
        method: String,
        /// Its arguments, an array.
        params: Value,
    },
    /// A call that wants no reply.
    Notification {
        /// The procedure.
        method: String,
        /// Its arguments, an array.
        params: Value,
    },
    /// The answer to a request.
    Reply {
        /// The request's.
        id: Value,
        /// The `result` member, or the `error` member if that is not null.
        result: Result<Value, Value>,
    },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    id: Value,
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

impl Message {
    /// Reads one complete message.
    ///
    /// # Errors
    /// [`JsonRpcError::Malformed`] and [`JsonRpcError::Shapeless`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonRpcError> {
        let Envelope { id, method, params, result, error } = serde_json::from_slice(text)?;
        match (method, id) {
            (Some(method), Value::Null) => Ok(Self::Notification { method, params }),
            (Some(method), id) => Ok(Self::Request { id, method, params }),
            (None, Value::Null) => Err(JsonRpcError::Shapeless),
            (None, id) => {
                Ok(Self::Reply { id, result: if error.is_null() { Ok(result) } else { Err(error) } })
            }
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Request { id, method, params } => json!({"id": id, "method": method, "params": params}),
            Self::Notification { method, params } => json!({"id": null, "method": method, "params": params}),
            Self::Reply { id, result: Ok(result) } => json!({"id": id, "result": result, "error": null}),
            Self::Reply { id, result: Err(error) } => json!({"id": id, "result": null, "error": error}),
        }
    }
}

/// Capacity a buffer keeps after a large message has passed.
const KEPT_CAPACITY: usize = 1 << 20;

/// Cuts a byte stream into JSON objects. Every byte is looked at once.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where the unfinished message begins; earlier bytes are done with.
    start: usize,
    /// Bytes before this one have been looked at.
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// An empty stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: Vec::new(), start: 0, scanned: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Bytes of the unfinished message, once [`Framer::next_object`] has found no other.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Where to append what was received. Only append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        // Only once the finished part outweighs the rest: moving the rest is then paid for by what was finished.
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            self.buffer.shrink_to(self.buffer.len().max(KEPT_CAPACITY));
        }
        &mut self.buffer
    }

    /// The text of the next complete object, if it has arrived.
    ///
    /// # Errors
    /// [`JsonRpcError::TooLong`], [`JsonRpcError::TooDeep`], [`JsonRpcError::NotAnObject`].
    pub fn next_object(&mut self) -> Result<Option<&[u8]>, JsonRpcError> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.scanned - self.start > self.limits.message {
                return Err(JsonRpcError::TooLong { limit: self.limits.message });
            }
            if self.ends_object(byte)? {
                let object = self.start..self.scanned;
                self.start = self.scanned;
                return Ok(Some(&self.buffer[object]));
            }
        }
        Ok(None)
    }

    fn ends_object(&mut self, byte: u8) -> Result<bool, JsonRpcError> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => self.start = self.scanned,
            b'{' | b'[' if self.depth > 0 || byte == b'{' => {
                self.depth += 1;
                if self.depth > self.limits.depth {
                    return Err(JsonRpcError::TooDeep { limit: self.limits.depth });
                }
            }
            _ if self.depth == 0 => return Err(JsonRpcError::NotAnObject(byte)),
            // Whether the brackets match is for serde to say.
            b'}' | b']' => {
                self.depth -= 1;
                return Ok(self.depth == 0);
            }
            b'"' => self.in_string = true,
            _ => {}
        }
        Ok(false)
    }
}

/// A JSON-RPC peer at the other end of a stream.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    framer: Framer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks JSON-RPC over `stream`.
    #[must_use]
    pub fn new(stream: S, limits: Limits) -> Self {
        Self { stream, framer: Framer::new(limits) }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`JsonRpcError::Io`].
    pub async fn send(&mut self, message: &Message) -> Result<(), JsonRpcError> {
        self.send_all(std::slice::from_ref(message)).await
    }

    /// Sends messages in one piece, so that the peer finds them all when it looks.
    ///
    /// # Errors
    /// [`JsonRpcError::Io`].
    pub async fn send_all(&mut self, messages: &[Message]) -> Result<(), JsonRpcError> {
        let text: String = messages.iter().map(|message| message.to_value().to_string()).collect();
        self.stream.write_all(text.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    /// Takes a message that has already been received completely.
    ///
    /// # Errors
    /// Any but [`JsonRpcError::Io`] and [`JsonRpcError::Closed`].
    pub fn received(&mut self) -> Result<Option<Message>, JsonRpcError> {
        self.framer.next_object()?.map(Message::parse).transpose()
    }

    /// Bytes of the message that has begun to arrive, once [`Connection::received`] has taken all others.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.framer.unfinished()
    }

    /// Waits until some bytes have come in. Nothing is lost if it is cancelled.
    ///
    /// # Errors
    /// [`JsonRpcError::Io`] and [`JsonRpcError::Closed`].
    pub async fn fill(&mut self) -> Result<(), JsonRpcError> {
        const CHUNK: usize = 64 << 10;
        let buffer = self.framer.buffer();
        buffer.reserve(CHUNK);
        match self.stream.read_buf(buffer).await? {
            0 => Err(JsonRpcError::Closed),
            _ => Ok(()),
        }
    }

    /// Waits for the next message. Nothing is lost if it is cancelled.
    ///
    /// # Errors
    /// Any [`JsonRpcError`].
    pub async fn receive(&mut self) -> Result<Message, JsonRpcError> {
        loop {
            if let Some(message) = self.received()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }
}

#[cfg(test)]
mod tests;
