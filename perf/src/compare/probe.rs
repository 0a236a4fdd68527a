//! What a port for HTTP says of the server behind it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::http::Decoder;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `/info` tells.
pub struct Info {
    pub is_nsqlookupd: bool,
    pub version: Option<String>,
    /// The Server field of the response.
    pub software: Option<String>,
}

/// # Errors
/// Why there is no whole response.
pub fn info(http: SocketAddr) -> Result<Info, String> {
    let Response { head, body, .. } =
        ask(http, "/info").map_err(|problem| format!("does not answer /info: {problem}"))?;
    let version = serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|info| info.get("version")?.as_str().map(str::to_owned));
    let software = head.lines().find_map(|line| line.strip_prefix("Server: ")).map(str::to_owned);
    Ok(Info { is_nsqlookupd: version.is_some(), version, software })
}

/// Whether a stream of events begins at `/watch`.
pub fn watches(http: SocketAddr) -> bool {
    let head = || {
        let mut stream = request(http, "/watch")?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status).map(|()| status)
    };
    head().is_ok_and(|status: [u8; 12]| &status == b"HTTP/1.1 200")
}

/// Waits for nothing: whether a target responds 200, with this body if one is given.
///
/// # Errors
/// What it does instead.
pub fn responds(http: SocketAddr, target: &str, expected: Option<&str>) -> Result<(), String> {
    let Response { status, body, .. } =
        ask(http, target).map_err(|problem| format!("does not answer {target}: {problem}"))?;
    if status == 200 && expected.is_none_or(|expected| expected == body) {
        return Ok(());
    }
    Err(format!("responds {status} \"{}\" to {target}", body.escape_default()))
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

/// The whole response to a GET.
fn ask(http: SocketAddr, target: &str) -> io::Result<Response> {
    let mut stream = request(http, target)?;
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match Decoder::default().decode(&input) {
            Ok(Some((answer, _))) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let head = memchr::memmem::find(&input, b"\r\n\r\n").unwrap_or(input.len());
                let body = text(answer.body);
                return Ok(Response { status: answer.status, head: text(&input[..head]), body });
            }
            Ok(None) => {}
            Err(malformed) => return Err(io::Error::other(malformed.to_string())),
        }
        #[expect(clippy::disallowed_methods, reason = "it is made again below")]
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => input.extend_from_slice(&piece[..read]),
            // A signal came first: the kernel does not go on by itself where a timeout is set (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn request(http: SocketAddr, target: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {http}\r\n\r\n").as_bytes())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// What responds to every request with the same bytes, until the tests end.
    fn fake(response: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut head, mut input) = (String::new(), BufReader::new(stream.try_clone().unwrap()));
                while input.read_line(&mut head).unwrap() > "\r\n".len() {}
                if !head.is_empty() {
                    stream.write_all(response.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn what_a_server_is_shows_in_its_info() {
        let lookupd = info(fake("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"version\":\"1.3.0\"}")).unwrap();
        assert!(lookupd.is_nsqlookupd && lookupd.version.as_deref() == Some("1.3.0"));
        let nginx = info(fake("HTTP/1.1 200 OK\r\nServer: nginx/1\r\nContent-Length: 2\r\n\r\n{}")).unwrap();
        assert!(!nginx.is_nsqlookupd && nginx.software.as_deref() == Some("nginx/1"));
        assert!(watches(fake("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")));
        assert!(!watches(fake("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")));
    }

    #[test]
    fn a_response_is_that_status_and_that_body() {
        let ready = |response, expected| responds(fake(response), "/ready", expected);
        let alone = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK, alone";
        assert_eq!(ready(alone, None), Ok(()));
        assert_eq!(ready(alone, Some("OK, alone")), Ok(()));
        assert_eq!(ready(alone, Some("OK")), Err("responds 200 \"OK, alone\" to /ready".into()));
        let starting = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nSTARTING";
        assert_eq!(ready(starting, None), Err("responds 503 \"STARTING\" to /ready".into()));
    }
}
