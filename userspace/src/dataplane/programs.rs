//! The programs of the BPF object: their names, loading them, and looking them up.

use std::error::Error;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use rustix::io::Errno;
use thiserror::Error;

use super::error::{Cause, Chain, errno};

/// The BPF object, built by `cargo xtask build-ebpf` and checked by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRUNKLINE_EBPF_OBJECT"));

/// The XDP program on the ports.
pub(super) const XDP: &str = "trunkline_xdp";
/// The tc program on the ports.
pub(super) const TC: &str = "trunkline_tc";
/// The XDP program that answers questions about single frames.
pub(super) const TRACE_XDP: &str = "trunkline_trace";
/// The tc program that answers such questions.
pub(super) const TRACE_TC: &str = "trunkline_tc_trace";
/// The program that extends leases, run by the agent.
pub(super) const RENEW: &str = "trunkline_renew";

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel lacks something, or refuses. The text has the whole chain of causes. The error has no
    /// source, since an operator would then read each cause twice.
    #[error("cannot load the BPF programs: {}{}", Chain(.0.as_ref()), next_step(.0.as_ref()))]
    Load(Cause),
    /// Something else that the programs need is missing: what, and why.
    #[error("cannot load the BPF programs: {0}: {1}")]
    Need(&'static str, Cause),
    /// The object lacks something: it does not belong to this binary.
    #[error("the BPF object has no {0}: rebuild with `cargo xtask build`")]
    Incomplete(&'static str),
}

/// Creates the maps and loads every program, those for tc only if the kernel `has_tc`.
///
/// # Errors
/// The kernel refuses, or the object lacks a program.
pub(super) fn load(loader: &mut EbpfLoader<'_>, has_tc: bool) -> Result<Ebpf, LoadError> {
    let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Load(error.into()))?;
    for name in [XDP, TRACE_XDP, RENEW] {
        xdp(&mut ebpf, name)?.load().map_err(|error| LoadError::Load(error.into()))?;
    }
    for name in [TC, TRACE_TC].into_iter().filter(|_| has_tc) {
        tc(&mut ebpf, name)?.load().map_err(|error| LoadError::Load(error.into()))?;
    }
    Ok(ebpf)
}

/// Finds an XDP program.
pub(super) fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?;
    program.try_into().map_err(|_: ProgramError| LoadError::Incomplete(name))
}

/// Finds a tc program.
pub(super) fn tc<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?;
    program.try_into().map_err(|_: ProgramError| LoadError::Incomplete(name))
}

/// Returns what to do about a refusal, where that is known.
fn next_step(cause: &(dyn Error + 'static)) -> &'static str {
    match errno(cause) {
        Some(Errno::PERM | Errno::ACCESS) => "; run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;
    use aya::maps::MapError;

    #[test]
    fn only_a_refusal_for_want_of_privileges_is_answered_with_them() {
        let text = |errno: Errno| {
            let cause = MapError::CreateError { name: "FDB".to_owned(), io_error: errno.into() };
            LoadError::Load(EbpfError::MapError(cause).into()).to_string()
        };
        let failed = "cannot load the BPF programs: map error: failed to create map `FDB`";
        let privileges = "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
        assert_eq!(
            text(Errno::PERM),
            format!("{failed}: Operation not permitted (os error 1); {privileges}")
        );
        assert_eq!(text(Errno::ACCESS), format!("{failed}: Permission denied (os error 13); {privileges}"));
        assert_eq!(text(Errno::NOMEM), format!("{failed}: Cannot allocate memory (os error 12)"));
        assert_eq!(text(Errno::AGAIN), format!("{failed}: Resource temporarily unavailable (os error 11)"));
    }

    #[test]
    fn what_loading_needs_is_named() {
        let error = LoadError::Need("the counters", Errno::NOMEM.into());
        let text = "cannot load the BPF programs: the counters: Cannot allocate memory (os error 12)";
        assert_eq!(error.to_string(), text);
    }
}
