//! Requests to a generic netlink family, and the attribute bytes of two families no crate writes.
//!
//! A message is a command and its attributes as bytes: the few attributes needed here are read and written
//! where they mean something, in [`ethtool`](super::ethtool) and [`xdp_features`](super::xdp_features).

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;

use futures_util::StreamExt;
use genetlink::{GenetlinkError, GenetlinkHandle};
use netlink_packet_core::{
    DecodeError, Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use super::LinkError;

/// A generic netlink family.
pub(super) trait Family: Debug + Clone {
    /// The name the kernel registered it under.
    const NAME: &'static str;
}

/// A message of the family `F`.
#[derive(Clone, Debug)]
pub(super) struct Message<F> {
    command: u8,
    attributes: Vec<u8>,
    family: PhantomData<F>,
}

impl<F: Family> GenlFamily for Message<F> {
    fn family_name() -> &'static str {
        F::NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl<F> Emitable for Message<F> {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl<F> ParseableParametrized<[u8], GenlHeader> for Message<F> {
    fn parse_with_param(attributes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, attributes: attributes.to_vec(), family: PhantomData })
    }
}

/// A generic netlink socket. Its driver is spawned on the current runtime and ends with the last handle.
pub(super) fn open() -> Result<GenetlinkHandle, LinkError> {
    let opened = genetlink::new_connection();
    let (mut connection, handle, _) =
        opened.map_err(|source| LinkError::Socket { what: "generic netlink socket", source })?;
    // A dump's end carries its error, and its absence means a dump cut short.
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok(handle)
}

/// The multicast group's id; `None` if this kernel does not have the family or the group.
pub(super) async fn group<F: Family>(
    handle: &GenetlinkHandle,
    group: &str,
    what: &'static str,
) -> Result<Option<u32>, LinkError> {
    match handle.resolve_family::<Message<F>>().await {
        Ok(family) => Ok(family.multicast_groups.get(group).copied()),
        Err(cause) => absent_or(cause, what).map(|()| None),
    }
}

/// All answers' attributes to a dump; `None` if this kernel does not have the family or the command.
pub(super) async fn dump<F: Family>(
    handle: &mut GenetlinkHandle,
    command: u8,
    attributes: Vec<u8>,
    what: &'static str,
) -> Result<Option<Vec<Vec<u8>>>, LinkError> {
    // The kernel does not acknowledge a dump that begins. Asking for it keeps netlink-proto waiting for the dump's end:
    // the netdev family does not mark its answers as parts of one, and the first would pass for the last.
    exchange::<F>(handle, command, attributes, NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK, what).await
}

/// The answer's attributes to one question, or nothing if it was only carried out; `None` as for [`dump`].
pub(super) async fn ask<F: Family>(
    handle: &mut GenetlinkHandle,
    command: u8,
    attributes: Vec<u8>,
    what: &'static str,
) -> Result<Option<Vec<Vec<u8>>>, LinkError> {
    exchange::<F>(handle, command, attributes, NLM_F_REQUEST | NLM_F_ACK, what).await
}

async fn exchange<F: Family>(
    handle: &mut GenetlinkHandle,
    command: u8,
    attributes: Vec<u8>,
    flags: u16,
    what: &'static str,
) -> Result<Option<Vec<Vec<u8>>>, LinkError> {
    let payload = Message::<F> { command, attributes, family: PhantomData };
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(payload));
    request.header.flags = flags;
    let mut answers = match handle.request(request).await {
        Ok(answers) => answers,
        Err(cause) => return absent_or(cause, what).map(|()| None),
    };

    let mut all = Vec::new();
    let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|cause| LinkError::Broken { what, cause: cause.to_string() })?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => all.push(message.payload.attributes),
            NetlinkPayload::Error(error) => {
                return if error.code.is_none() {
                    Ok(Some(all))
                } else {
                    absent_or(error.into(), what).map(|()| None)
                };
            }
            NetlinkPayload::Done(done) if done.code < 0 => {
                let source = io::Error::from_raw_os_error(-done.code);
                return absent_or(GenetlinkError::NetlinkError(source), what).map(|()| None);
            }
            NetlinkPayload::Done(_) => return Ok(Some(all)),
            _ => {}
        }
    }
    // An acknowledgement only ends the stream, a dump says that it is done.
    if dump {
        Err(LinkError::Broken { what, cause: "the answer ended early".to_owned() })
    } else {
        Ok(Some(all))
    }
}

/// `ENOENT` is a family, and `EOPNOTSUPP` a command, that this kernel does not have.
fn absent_or(cause: GenetlinkError, what: &'static str) -> Result<(), LinkError> {
    let source = match cause {
        GenetlinkError::NetlinkError(source) => source,
        other => return Err(LinkError::Broken { what, cause: other.to_string() }),
    };
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        _ => Err(LinkError::Refused { what, source }),
    }
}

/// Appends one attribute. A value longer than an attribute can be is a mistake in this program.
pub(super) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = NLA_HEADER_SIZE + value.len();
    debug_assert!(length <= usize::from(u16::MAX));
    out.extend_from_slice(&(length as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends one attribute that holds others.
pub(super) fn put_nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    fill(&mut value);
    put(out, kind | NLA_F_NESTED, &value);
}

/// The attributes in `bytes`, up to the first that is malformed.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let length = attribute.value_length();
        (attribute.kind(), &attribute.into_inner()[NLA_HEADER_SIZE..NLA_HEADER_SIZE + length])
    })
}

/// The first attribute of this kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number of four bytes.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_the_kernel_reads_them() {
        let mut bytes = Vec::new();
        put_nest(&mut bytes, 1, |inner| put(inner, 2, b"lo\0"));
        assert_eq!(bytes, [12, 0, 1, 0x80, 7, 0, 2, 0, b'l', b'o', 0, 0]);
        assert_eq!(find(find(&bytes, 1).unwrap(), 2), Some(&b"lo\0"[..]));
    }

    #[test]
    fn a_malformed_attribute_ends_the_list() {
        assert_eq!(attributes(&[5, 0, 1, 0, 9, 0, 0, 0, 200, 0, 2, 0]).count(), 1);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[1]).count(), 0);
        assert_eq!(number(&[1, 2, 3]), None);
    }
}
