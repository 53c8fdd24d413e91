//! Where the database server listens, in the notation of `ovs-vsctl --db`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The port IANA assigned to OVSDB, which OVS takes when none is given.
const PORT: u16 = 6640;

/// A database server's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tcp:HOST:PORT`; holds `HOST:PORT`, IPv6 addresses in brackets.
    Tcp(String),
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ParseEndpointError {
    /// Not one of the notations.
    #[error("{0:?} is no database address: write unix:PATH or tcp:HOST:PORT")]
    Unknown(String),
    /// TLS, which this program does not speak.
    #[error(
        "{0:?}: TLS is not supported yet; use the server's unix socket (unix:PATH), or tcp: through a tunnel \
         that encrypts"
    )]
    Tls(String),
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", host)) if !host.is_empty() && !host.starts_with(':') => {
                Ok(Self::Tcp(with_port(host)))
            }
            Some(("ssl", _)) => Err(ParseEndpointError::Tls(text.to_owned())),
            _ => Err(ParseEndpointError::Unknown(text.to_owned())),
        }
    }
}

fn with_port(host: &str) -> String {
    // The colons in brackets are an IPv6 address's own.
    let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    if after_address.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Tcp(host) => write!(out, "tcp:{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_ovs_writes_them() {
        for (text, endpoint) in [
            ("unix:/run/openvswitch/db.sock", Endpoint::Unix("/run/openvswitch/db.sock".into())),
            ("tcp:127.0.0.1:6641", Endpoint::Tcp("127.0.0.1:6641".into())),
            ("tcp:[::1]:6641", Endpoint::Tcp("[::1]:6641".into())),
            ("tcp:[::1]", Endpoint::Tcp("[::1]:6640".into())),
            ("tcp:ovs.example", Endpoint::Tcp("ovs.example:6640".into())),
        ] {
            assert_eq!(text.parse(), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_way_out() {
        for text in ["", "unix:", "tcp:", "tcp::6640", "punix:/x", "/run/openvswitch/db.sock"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("unix:PATH"), "{error}");
        }
        let error = "ssl:10.0.0.1:6640".parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("TLS is not supported yet; use"), "{error}");
    }
}
