//! A watch: one long response, a line for each message.

use std::io::{BufRead, BufReader, Read as _};

use super::client::{Client, too_long};
use super::decode::{self, Line};
use super::encode;
use super::refusal::Refusal;
use crate::cluster::store::{Failure, Revision, Watched};
use crate::limits::ETCD_RESPONSE_BYTES_MAX;

/// Bytes that are kept for the next line, after a long one.
const KEPT_LINE_BYTES: usize = 1 << 20;

const READ_BYTES: usize = 64 << 10;

/// Watches all keys with a prefix until that ends, and says why it has.
pub(super) fn run(client: &Client, prefix: &str, from: Revision, mut report: impl FnMut(Watched)) -> Watched {
    let body = encode::watch(prefix, from);
    match client.authenticated(|token| attempt(client, &body, token, &mut report)) {
        Err(Failure::Compacted) => Watched::Compacted,
        Err(failure) => Watched::Failed(failure),
        Ok(never) => match never {},
    }
}

/// What there is not: a watch ends with an error.
enum Never {}

fn attempt(
    client: &Client,
    body: &[u8],
    token: Option<&str>,
    report: &mut impl FnMut(Watched),
) -> Result<Never, Refusal> {
    let mut reply = client.post("/v3/watch", body, token)?;
    let endpoint = reply.endpoint;
    let result = if reply.status == 200 {
        let mut lines = BufReader::with_capacity(READ_BYTES, reply.body.into_reader());
        let mut line = Vec::new();
        loop {
            let next = next_line(client, endpoint, &mut lines, &mut line);
            match next.and_then(|()| decode::line(200, &mut line)) {
                Ok(Line::Begun(header)) => report(Watched::Begun(header)),
                Ok(Line::Changed(header, changes)) => report(Watched::Changed(header, changes)),
                Ok(Line::Progress) => {}
                Ok(Line::Compacted) => break Err(Failure::Compacted.into()),
                Err(refusal) => break Err(refusal),
            }
        }
    } else {
        let whole = client.whole(&mut reply).map_err(Refusal::from);
        whole.and_then(|mut whole| decode::line(reply.status, &mut whole)).and(Err(Failure::NoGateway.into()))
    };
    client.noting(endpoint, result)
}

/// Reads the next line that is not empty.
fn next_line(
    client: &Client,
    endpoint: usize,
    lines: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> Result<(), Refusal> {
    loop {
        line.clear();
        line.shrink_to(KEPT_LINE_BYTES);
        let read = lines.take(ETCD_RESPONSE_BYTES_MAX as u64 + 1).read_until(b'\n', line);
        read.map_err(|error| client.read_failure(endpoint, error))?;
        if line.len() > ETCD_RESPONSE_BYTES_MAX {
            return Err(too_long().into());
        }
        if line.is_empty() {
            return Err(Failure::Unreachable("the watch has ended".to_owned()).into());
        }
        if !line.trim_ascii().is_empty() {
            return Ok(());
        }
    }
}
