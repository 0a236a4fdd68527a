//! Where the two servers may differ: what the release does not have, and what `docs/differences.md` lists. Nothing
//! else is left out.

use super::http::Request;

/// Size of the buffer in which Go collects a response: a longer one gets no `Content-Length`.
pub const GO_BUFFER_BYTES: usize = 2048;

/// Fields of a producer that 1.3.0 does not have, as they are written when nsqd did not send them.
pub const UNRELEASED_FIELDS: [&[u8]; 2] = [br#","topology_zone":"""#, br#","topology_region":"""#];

pub struct Difference {
    /// Words of that list.
    pub listed: &'static str,
    /// What the comparison does about it, and why.
    pub reason: &'static str,
    pub rule: Rule,
}

pub enum Rule {
    /// Such a request is not sent, as what the servers hold would differ from then on. The flag tells whether any
    /// producer has been tombstoned.
    NotAsked(fn(&Asked, bool) -> bool),
    /// The response to such a request is not compared, given that of stock.
    NotCompared(fn(&Asked, &[u8]) -> bool),
    /// `normal.rs` allows for it.
    Normalized,
    /// No step leads to it.
    NotMet,
}

pub const DIFFERENCES: [Difference; 14] = [
    Difference {
        listed: "`topology_zone`",
        reason: "1.3.0 does not have these fields: they are cut out of what ringlookupd says",
        rule: Rule::Normalized,
    },
    Difference {
        listed: "`topology_zone`",
        reason: "with them a body may exceed Go's buffer, which ends a connection of HTTP/1.0",
        rule: Rule::NotAsked(|asked, _| {
            asked.is_http_1_0 && ["debug", "lookup", "nodes"].iter().any(|route| asked.path.contains(route))
        }),
    },
    Difference {
        listed: "`Content-Length` where its length is known",
        reason: "the length, or the chunks, of a long body are not compared, but what they frame",
        rule: Rule::Normalized,
    },
    Difference {
        listed: "`/debug` lists its keys in any order",
        reason: "its keys are sorted before they are compared",
        rule: Rule::Normalized,
    },
    Difference {
        listed: "A redirect of a target in absolute form",
        reason: "scheme, user and host are cut out of stock's `Location` and of the page's link",
        rule: Rule::Normalized,
    },
    Difference {
        listed: "HEAD is answered",
        reason: "405 in stock",
        rule: Rule::NotCompared(|asked, stock| {
            asked.method == "HEAD" && asked.is_read() && stock[b"HTTP/1.1".len()..].starts_with(b" 405 ")
        }),
    },
    Difference {
        listed: "`/metrics` and `/metrics/topics` are additions",
        reason: "404 in stock",
        rule: Rule::NotAsked(|asked, _| asked.path.contains("metrics")),
    },
    Difference {
        listed: "`/debug/pprof` is not there",
        reason: "it shows a Go runtime",
        rule: Rule::NotAsked(|asked, _| asked.path.contains("pprof")),
    },
    Difference {
        listed: "`*` is no wildcard",
        reason: "stock deletes or hides all topics",
        rule: Rule::NotAsked(|asked, _| asked.query.contains('*') && !asked.is_read()),
    },
    Difference {
        listed: "visible in at least one topic",
        reason: "stock takes any of a producer's topics, and lists it if it is not tombstoned there",
        rule: Rule::NotAsked(|asked, tombstoned| {
            tombstoned && asked.path.contains("lookup") && asked.query.contains('*')
        }),
    },
    Difference {
        listed: "with and without brackets",
        reason: "to stock no producer has such an address",
        rule: Rule::NotAsked(|asked, _| asked.is_tombstone() && asked.query.contains('[')),
    },
    Difference {
        listed: "A negative or huge IDENTIFY length",
        reason: "kills stock; all that is sent here is within the limits",
        rule: Rule::NotMet,
    },
    Difference {
        listed: "A malformed header line",
        reason: "each head that has one is sent whole",
        rule: Rule::NotMet,
    },
    Difference {
        listed: "A producer is its connection",
        reason: "no two connections of a session have the same address",
        rule: Rule::NotMet,
    },
];

/// A request as the table sees it.
pub struct Asked {
    method: &'static str,
    is_http_1_0: bool,
    /// Path and query in lower case with all escapes undone, the query from its question mark.
    path: String,
    query: String,
}

impl Asked {
    pub fn new(request: &Request) -> Self {
        let target = String::from_utf8_lossy(&unescaped(&request.target)).to_lowercase();
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let is_http_1_0 = memchr::memmem::find(&request.bytes, b"HTTP/1.0").is_some();
        Self { method: request.method, is_http_1_0, path: path.into(), query: query.into() }
    }

    pub fn is_tombstone(&self) -> bool {
        self.path.contains("tombstone")
    }

    /// Whether it is, or is nearly, for a route of GET.
    fn is_read(&self) -> bool {
        !["create", "delete", "tombstone"].iter().any(|change| self.path.contains(change))
    }
}

/// Undoes each valid percent escape.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            out.push(u8::try_from(high * 16 + low).expect("two digits"));
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

/// Whether a row says that `request` is not to be sent.
pub fn is_avoided(request: &Request, tombstoned: bool) -> bool {
    let asked = Asked::new(request);
    DIFFERENCES.iter().any(|row| matches!(row.rule, Rule::NotAsked(matches) if matches(&asked, tombstoned)))
}

/// Whether a row says that the response to `request` is not to be compared with that of stock.
pub fn is_not_compared(request: &Request, stock: &[u8]) -> bool {
    let asked = Asked::new(request);
    DIFFERENCES.iter().any(|row| matches!(row.rule, Rule::NotCompared(matches) if matches(&asked, stock)))
}

/// The list has every row of the table.
#[test]
fn differences_are_those_of_the_list() {
    let list = include_str!("../../../docs/differences.md");
    let list = list.split_whitespace().collect::<Vec<_>>().join(" ");
    for Difference { listed, reason, .. } in DIFFERENCES {
        assert!(list.contains(listed), "docs/differences.md lacks {listed:?} ({reason})");
    }
}
