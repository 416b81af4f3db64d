//! As much of HTTP as a scraper needs: one request, one answer, and the connection ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use workhall_core::Instant;

use crate::clock::Clock;

/// The most bytes of a request.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long all of a request may take to come.
const REQUEST_WITHIN: Duration = Duration::from_millis(500);
/// How long all of an answer may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// What the text is.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Who asks.
pub(super) trait Peer: Read + Write {
    /// A read that takes longer fails.
    fn read_within(&self, time: Duration) -> io::Result<()>;
    /// The same for a write.
    fn write_within(&self, time: Duration) -> io::Result<()>;
    /// Nothing more comes from here.
    fn end(&self) -> io::Result<()>;
}

macro_rules! peer {
    ($stream:ty) => {
        impl Peer for $stream {
            fn read_within(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))
            }
            fn write_within(&self, time: Duration) -> io::Result<()> {
                self.set_write_timeout(Some(time))
            }
            fn end(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}

peer!(TcpStream);
peer!(UnixStream);

/// What is answered.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn plain(status: &'static str, body: &str) -> Answer {
        Answer { status, kind: PLAIN, body: format!("{body}\n") }
    }
}

/// Reads a request and answers it. `sample` has the figures, or none.
pub(super) fn answer(peer: &mut dyn Peer, clock: Clock, sample: impl FnOnce() -> Option<String>) -> io::Result<()> {
    let request = read_request(peer, clock)?;
    let (answer, head_only) = match request.as_deref().map(asked_for) {
        None => (Answer::plain("431 Request Header Fields Too Large", "the request is too long"), false),
        Some(Asked::Metrics { head_only }) => match sample() {
            Some(body) => (Answer { status: "200 OK", kind: TEXT, body }, head_only),
            None => (Answer::plain("503 Service Unavailable", "the supervisor does not answer now"), head_only),
        },
        Some(Asked::SomethingElse) => (Answer::plain("404 Not Found", "there is nothing but /metrics"), false),
        Some(Asked::Otherwise) => (Answer::plain("405 Method Not Allowed", "GET and HEAD are understood"), false),
        Some(Asked::Nonsense) => (Answer::plain("400 Bad Request", "this is no request of HTTP/1"), false),
    };
    let Answer { status, kind, body } = answer;
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    if !head_only {
        text.push_str(&body);
    }
    write_all(peer, clock, text.as_bytes())?;
    peer.end()
}

/// Up to the empty line, which ends it; none if it is too long.
fn read_request(peer: &mut dyn Peer, clock: Clock) -> io::Result<Option<Vec<u8>>> {
    let until = clock.now().after(REQUEST_WITHIN);
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        peer.read_within(left(clock, until)?)?;
        match peer.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => request.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if request.windows(4).any(|end| end == b"\r\n\r\n") || request.windows(2).any(|end| end == b"\n\n") {
            return Ok(Some(request));
        }
        if request.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
    }
}

fn write_all(peer: &mut dyn Peer, clock: Clock, mut text: &[u8]) -> io::Result<()> {
    let until = clock.now().after(READ_WITHIN);
    while !text.is_empty() {
        peer.write_within(left(clock, until)?)?;
        match peer.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Until then; fails if that is over.
fn left(clock: Clock, until: Instant) -> io::Result<Duration> {
    let left = until.since(clock.now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Metrics {
        head_only: bool,
    },
    SomethingElse,
    /// By another method.
    Otherwise,
    Nonsense,
}

fn asked_for(request: &[u8]) -> Asked {
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(line) = str::from_utf8(line) else { return Asked::Nonsense };
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    match words[..] {
        [method, target, version] if version.starts_with("HTTP/1.") => {
            let path = target.split('?').next().unwrap_or_default();
            match (method, path) {
                ("GET" | "HEAD", "/metrics") => Asked::Metrics { head_only: method == "HEAD" },
                ("GET" | "HEAD", _) => Asked::SomethingElse,
                _ => Asked::Otherwise,
            }
        }
        _ => Asked::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_in_the_first_line() {
        for (line, asked) in [
            ("GET /metrics HTTP/1.1\r\nHost: x", Asked::Metrics { head_only: false }),
            ("HEAD /metrics?a=b HTTP/1.0", Asked::Metrics { head_only: true }),
            ("GET / HTTP/1.1", Asked::SomethingElse),
            ("GET /metrics/ HTTP/1.1", Asked::SomethingElse),
            ("POST /metrics HTTP/1.1", Asked::Otherwise),
            ("GET /metrics HTTP/2", Asked::Nonsense),
            ("GET /metrics", Asked::Nonsense),
            ("GET  /metrics HTTP/1.1", Asked::Nonsense),
            ("", Asked::Nonsense),
        ] {
            assert_eq!(asked_for(line.as_bytes()), asked, "{line}");
        }
        assert_eq!(asked_for(b"\xff\xfe"), Asked::Nonsense);
    }
}
