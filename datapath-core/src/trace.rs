//! The question and the answer of `trunkline trace`, as values.
//!
//! The agent and the trace programs exchange them in map `TRACE`; they are encoded into [`abi::Trace`] and
//! decoded from it here and nowhere else.

use crate::{DropReason, PuntReason, Tag, Tpid, Verdict, Vid, abi};

/// What the agent asks: where a frame would go that arrives on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceQuestion {
    /// The interface index of the device.
    pub ifindex: u32,
    /// At the tc hook, the tag beside the frame as it arrives.
    pub beside: Option<Tag>,
}

/// What a trace program answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceAnswer {
    /// The verdict.
    pub decision: Decision,
    /// The frame's VLAN; `None` if it was not classified.
    pub vid: Option<Vid>,
    /// At the tc hook, the tag beside the frame as it leaves.
    pub beside: Option<Tag>,
    /// The program's clock, in seconds.
    pub now_s: u32,
}

/// A verdict without the edit of the tag, which shows in the frame that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It leaves through a port.
    Forward {
        /// The port (`PortNo`).
        port: u16,
    },
    /// It goes up to Open vSwitch.
    Punt(PuntReason),
    /// It is dropped.
    Drop(DropReason),
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forward { port, tag: _ } => Self::Forward { port },
            Verdict::Punt(reason) => Self::Punt(reason),
            Verdict::Drop(reason) => Self::Drop(reason),
        }
    }
}

/// A decision as two numbers.
///
/// Programs encode each decision where they make it, and carry on with this: of an enum whose variants have
/// different contents, compilers may carry along registers that were never written, which verifiers refuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncodedDecision {
    kind: u16,
    detail: u16,
}

impl Decision {
    /// Encodes the decision.
    #[inline(always)]
    pub const fn encode(self) -> EncodedDecision {
        let (kind, detail) = match self {
            Self::Forward { port } => (abi::TRACE_FORWARD, port),
            Self::Punt(reason) => (abi::TRACE_PUNT, reason as u16),
            Self::Drop(reason) => (abi::TRACE_DROP, reason as u16),
        };
        EncodedDecision { kind, detail }
    }

    fn decode(EncodedDecision { kind, detail }: EncodedDecision) -> Option<Self> {
        let index = usize::from(detail);
        match kind {
            abi::TRACE_FORWARD => Some(Self::Forward { port: detail }),
            abi::TRACE_PUNT => PuntReason::ALL.get(index).copied().map(Self::Punt),
            abi::TRACE_DROP => DropReason::ALL.get(index).copied().map(Self::Drop),
            _ => None,
        }
    }
}

impl abi::Trace {
    /// Encodes a question. Its answer is missing until a program has written one.
    #[inline(always)]
    pub fn ask(question: &TraceQuestion) -> Self {
        let TraceQuestion { ifindex, beside } = *question;
        Self { ifindex, beside: tag_to_word(beside), ..Self::default() }
    }

    /// Decodes the question.
    #[inline(always)]
    pub const fn question(&self) -> TraceQuestion {
        TraceQuestion { ifindex: self.ifindex, beside: tag_from_word(self.beside) }
    }

    /// Encodes the answer to a question about this device.
    #[inline(always)]
    pub fn reply(
        ifindex: u32,
        decision: EncodedDecision,
        vid: Option<Vid>,
        beside: Option<Tag>,
        now_s: u32,
    ) -> Self {
        let EncodedDecision { kind, detail } = decision;
        let vid = vid.map_or(abi::NO_VID, Vid::get);
        Self { ifindex, beside: tag_to_word(beside), kind, detail, vid, reserved: 0, now_s }
    }

    /// Decodes the answer; `None` if no program has written one.
    pub fn answer(&self) -> Option<TraceAnswer> {
        let decision = Decision::decode(EncodedDecision { kind: self.kind, detail: self.detail })?;
        let (vid, beside) = (Vid::new(self.vid), tag_from_word(self.beside));
        Some(TraceAnswer { decision, vid, beside, now_s: self.now_s })
    }
}

/// Encodes a tag as in [`abi::Trace::beside`].
#[inline(always)]
fn tag_to_word(tag: Option<Tag>) -> u32 {
    tag.map_or(0, Tag::to_word)
}

#[inline(always)]
const fn tag_from_word(word: u32) -> Option<Tag> {
    match Tpid::from_ethertype((word >> 16) as u16) {
        Some(tpid) => Some(Tag::from_wire(tpid, word as u16)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: [Option<Tag>; 3] =
        [None, Some(Tag::from_wire(Tpid::Dot1Q, 0)), Some(Tag::from_wire(Tpid::Dot1Ad, 0xffff))];

    #[test]
    fn questions_come_back_without_an_answer() {
        for beside in TAGS {
            let question = TraceQuestion { ifindex: u32::MAX, beside };
            assert_eq!(abi::Trace::ask(&question).question(), question);
            assert_eq!(abi::Trace::ask(&question).answer(), None);
        }
    }

    #[test]
    fn answers_of_every_kind_come_back() {
        let forward = [Decision::Forward { port: 0 }, Decision::Forward { port: 1023 }];
        let punts = PuntReason::ALL.iter().map(|reason| Decision::Punt(*reason));
        let drops = DropReason::ALL.iter().map(|reason| Decision::Drop(*reason));
        for decision in forward.into_iter().chain(punts).chain(drops) {
            for (vid, beside) in [None, Vid::new(0), Vid::new(4095)].into_iter().zip(TAGS) {
                let answer = TraceAnswer { decision, vid, beside, now_s: 77 };
                let reply = abi::Trace::reply(5, decision.encode(), vid, beside, 77);
                assert_eq!((reply.ifindex, reply.answer()), (5, Some(answer)));
            }
        }
    }

    #[test]
    fn a_reason_that_is_not_known_is_not_an_answer() {
        for kind in [abi::TRACE_PUNT, abi::TRACE_DROP, 4] {
            let reply = abi::Trace { kind, detail: 99, ..abi::Trace::default() };
            assert_eq!(reply.answer(), None);
        }
    }
}
