//! Failures of steps, with the errors that caused them.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::tc::TcError;
use aya::programs::xdp::XdpError;
use rustix::io::Errno;
use thiserror::Error;

/// A cause of any type.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// A failed step: the operation, its object and the cause. Its text tells the whole chain of causes.
#[derive(Debug, Error)]
#[error("cannot {operation} {object}: {}", Chain(.cause.as_ref()))]
pub struct DataplaneError {
    operation: &'static str,
    object: String,
    #[source]
    cause: Cause,
}

impl DataplaneError {
    pub(crate) fn new(operation: &'static str, object: impl ToString, cause: impl Into<Cause>) -> Self {
        Self { operation, object: object.to_string(), cause: cause.into() }
    }
}

/// Writes an error and its causes in one line, each once: some errors repeat their cause in their own text.
pub(super) struct Chain<'e>(pub(super) &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        for cause in causes(self.0).skip(1) {
            let cause = cause.to_string();
            if !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

/// Returns the kernel's error number of an error, or of the first of its causes that has one.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    causes(error).find_map(own_errno)
}

/// Returns an error and, one by one, what caused it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Returns the error number of this error itself. Some variants of aya's errors are transparent: they have
/// the text and the source of the error in them, which is therefore not among the causes and is looked for
/// here.
fn own_errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Errno::from_io_error(error);
    }
    if let Some(error) = error.downcast_ref::<ProgramError>() {
        return match error {
            ProgramError::IOError(error) | ProgramError::TcError(TcError::IoError(error)) => {
                Errno::from_io_error(error)
            }
            ProgramError::MapError(error) => own_errno(error),
            ProgramError::NetlinkError(error)
            | ProgramError::XdpError(XdpError::NetlinkError(error))
            | ProgramError::TcError(TcError::NetlinkError(error)) => {
                error.raw_os_error().map(Errno::from_raw_os_error)
            }
            _ => None,
        };
    }
    match error.downcast_ref::<MapError>() {
        Some(MapError::IoError(error)) => Errno::from_io_error(error),
        Some(_) => None,
        None => error.downcast_ref::<Errno>().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;
    use aya::sys::SyscallError;

    fn denied() -> io::Error {
        Errno::PERM.into()
    }

    /// The same error in the forms in which aya has it, with the text of each.
    fn forms() -> [(Cause, &'static str); 7] {
        let syscall = || SyscallError { call: "bpf_link_create", io_error: denied() };
        let create = || MapError::CreateError { name: "FDB".to_owned(), io_error: denied() };
        [
            (denied().into(), "Operation not permitted (os error 1)"),
            (Errno::PERM.into(), "Operation not permitted (os error 1)"),
            (
                EbpfError::MapError(create()).into(),
                "map error: failed to create map `FDB`: Operation not permitted (os error 1)",
            ),
            (
                ProgramError::SyscallError(syscall()).into(),
                "`bpf_link_create` failed: Operation not permitted (os error 1)",
            ),
            (ProgramError::IOError(denied()).into(), "Operation not permitted (os error 1)"),
            (
                ProgramError::MapError(MapError::IoError(denied())).into(),
                "Operation not permitted (os error 1)",
            ),
            (
                ProgramError::TcError(TcError::IoError(denied())).into(),
                "Operation not permitted (os error 1)",
            ),
        ]
    }

    #[test]
    fn a_failure_is_told_with_its_operation_its_object_and_each_cause_once() {
        for (cause, text) in forms() {
            let error = DataplaneError::new("attach the XDP program to", "p1", cause);
            assert_eq!(error.to_string(), format!("cannot attach the XDP program to p1: {text}"));
        }
        // A cause that is in the text already, and one that is none of the kernel's.
        let again = DataplaneError::new("write the rules of", "p1", MapError::ProgramNotLoaded);
        assert_eq!(again.to_string(), "cannot write the rules of p1: the program is not loaded");
        let renamed = DataplaneError::new("attach the tc program to", "p1", "it is being renamed");
        assert_eq!(renamed.to_string(), "cannot attach the tc program to p1: it is being renamed");
    }

    #[test]
    fn the_error_number_is_found_wherever_it_is_in_the_chain() {
        for (cause, text) in forms() {
            assert_eq!(errno(cause.as_ref()), Some(Errno::PERM), "{text}: {cause:?}");
            let error = DataplaneError::new("attach the XDP program to", "p1", cause);
            assert_eq!(errno(&error), Some(Errno::PERM), "{error:?}");
        }
        assert_eq!(errno(&MapError::KeyNotFound), None);
        let of_text = DataplaneError::new("attach the tc program to", "p1", "words (os error 1)");
        assert_eq!(errno(&of_text), None, "a text is no number");
    }

    #[test]
    fn the_cause_is_kept_with_its_type() {
        let error = DataplaneError::new("read the lease of", "bridge 0", MapError::KeyNotFound);
        let source = error.source().and_then(|cause| cause.downcast_ref::<MapError>());
        assert!(matches!(source, Some(MapError::KeyNotFound)), "{error:?}");
    }
}
