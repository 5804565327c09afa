//! Where a plugin listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path of a Unix socket: the kernel keeps 108 bytes, one of them the end.
const LONGEST: usize = 107;

/// A plugin's Unix socket.
///
/// Parsed from `unix:///path`, `unix:path` or a bare path, as orchestrators and `CSI_ENDPOINT` write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(PathBuf);

/// Why a text names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEndpoint {
    /// Nothing after the scheme.
    #[error("the endpoint {0:?} has no path: write unix:///path/to/csi.sock")]
    NoPath(String),
    /// Another scheme than `unix`.
    #[error("the endpoint {0:?} is not a Unix socket: write unix:///path/to/csi.sock")]
    Scheme(String),
    /// A host between `unix://` and the path.
    #[error("the endpoint {0:?} names a host: write unix:///path, with three slashes")]
    Host(String),
    /// More than the kernel takes.
    #[error("the socket's path {0:?} has more than {LONGEST} bytes, the most that the kernel takes: use a shorter one")]
    TooLong(PathBuf),
}

impl Endpoint {
    /// The socket at `path`.
    ///
    /// # Errors
    /// Where the path is empty or longer than a socket's address may be.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, BadEndpoint> {
        let path = path.into();
        match path.as_os_str().len() {
            0 => Err(BadEndpoint::NoPath(String::new())),
            1..=LONGEST => Ok(Self(path)),
            _ => Err(BadEndpoint::TooLong(path)),
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let path = match text.split_once(':') {
            // A colon after a slash belongs to the path.
            Some((scheme, _)) if scheme.contains('/') => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("unix") => match rest.strip_prefix("//") {
                Some(path) if path.is_empty() || path.starts_with('/') => path,
                Some(_) => return Err(BadEndpoint::Host(text.to_owned())),
                None => rest,
            },
            Some(_) => return Err(BadEndpoint::Scheme(text.to_owned())),
            None => text,
        };
        if path.is_empty() { Err(BadEndpoint::NoPath(text.to_owned())) } else { Self::at(path) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}{}", if self.0.is_absolute() { "//" } else { "" }, self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_socket_is_understood() {
        for (text, path) in [
            ("unix:///run/csi.sock", "/run/csi.sock"),
            ("UNIX:///run/csi.sock", "/run/csi.sock"),
            ("unix:/run/csi.sock", "/run/csi.sock"),
            ("unix:csi.sock", "csi.sock"),
            ("/run/csi.sock", "/run/csi.sock"),
            ("csi.sock", "csi.sock"),
            ("/run/a:b/csi.sock", "/run/a:b/csi.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().path(), Path::new(path), "{text}");
        }
    }

    #[test]
    fn what_is_no_socket_is_refused_with_what_to_write() {
        for text in ["", "unix:", "unix://", "tcp://127.0.0.1:10000", "unix://run/csi.sock", "host:1234"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("unix:///path"), "{text}: {error}");
        }
        let long = format!("unix:///{}", "d".repeat(LONGEST));
        assert!(long.parse::<Endpoint>().unwrap_err().to_string().contains("107 bytes"));
    }

    #[test]
    fn an_endpoint_reads_back_as_it_is_printed() {
        for text in ["unix:///run/csi.sock", "unix:csi.sock"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}
