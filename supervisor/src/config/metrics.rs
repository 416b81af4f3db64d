//! `metrics` in `[supervisor]`: where those who watch may read the figures.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::sys::SOCKET_PATH_BYTES_MAX;

/// Where metrics are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// An address of loopback, and a port.
    Address(SocketAddr),
    /// A Unix socket.
    Path(PathBuf),
}

impl MetricsAt {
    /// A path is relative to `base`.
    pub(super) fn below(&self, base: &Path) -> MetricsAt {
        match self {
            MetricsAt::Path(path) => MetricsAt::Path(base.join(path)),
            address => address.clone(),
        }
    }
}

pub(super) fn metrics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MetricsAt>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(de::Error::custom)
}

fn parse(text: &str) -> Result<MetricsAt, String> {
    if text.contains('/') {
        return match text.len() <= SOCKET_PATH_BYTES_MAX && !text.contains('\0') {
            true => Ok(MetricsAt::Path(PathBuf::from(text))),
            false => Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes, and no NUL character")),
        };
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        format!(
            "`{text}` is neither an address with its port, like \"127.0.0.1:9464\" or \"[::1]:9464\", nor the path of a \
             socket, like \"/run/workhall/metrics.sock\""
        )
    })?;
    let loopback = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    match (loopback, address.port()) {
        (false, _) => Err(format!(
            "`{text}` is no address of loopback: whoever reaches it may read the metrics, so they are for this machine \
             alone; use \"127.0.0.1:{0}\", \"[::1]:{0}\" or the path of a Unix socket, and a proxy for others",
            address.port().max(1)
        )),
        (true, 0) => Err("port 0 is a different one at each start: name one, like 9464".to_string()),
        (true, _) => Ok(MetricsAt::Address(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_meant() {
        for good in ["127.0.0.1:9464", "127.8.0.1:1", "[::1]:9464"] {
            assert_eq!(parse(good), Ok(MetricsAt::Address(good.parse().unwrap())));
        }
        for path in ["/run/m", "run/m", "./m"] {
            assert_eq!(parse(path), Ok(MetricsAt::Path(path.into())));
        }
        for (bad, part) in [
            ("0.0.0.0:9464", "no address of loopback"),
            ("192.0.2.1:9464", "\"127.0.0.1:9464\""),
            ("[::]:9464", "no address of loopback"),
            ("[::ffff:127.0.0.1]:9464", "no address of loopback"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1", "neither an address with its port"),
            ("localhost:9464", "neither an address with its port"),
            ("9464", "neither an address with its port"),
            ("", "neither an address with its port"),
        ] {
            assert!(parse(bad).is_err_and(|error| error.contains(part)), "{bad}: {:?}", parse(bad));
        }
        assert!(parse(&"/x".repeat(54)).is_err());
    }
}
