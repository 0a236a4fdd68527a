//! Query arguments, judged as Go's `net/url` judges them.

use std::borrow::Cow;

use super::target::decode;
use crate::limits::HTTP_PARAMETERS_MAX;

/// A query that stock answers with `INVALID_REQUEST`, on the endpoints that take arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadQuery;

/// The arguments that any endpoint of nsqlookupd looks at; of a repeated key the first value
/// counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args<'a> {
    /// `topic`
    pub topic: Option<Cow<'a, [u8]>>,
    /// `channel`
    pub channel: Option<Cow<'a, [u8]>>,
    /// `node`
    pub node: Option<Cow<'a, [u8]>>,
}

/// Reads the arguments from a query; stock: `url.ParseQuery`, whose every error refuses the whole
/// request. Values without `%` and `+` are borrowed.
///
/// # Errors
/// [`BadQuery`] for a bad escape or a raw `;` anywhere, and for more than [`HTTP_PARAMETERS_MAX`]
/// parameters.
pub fn args(query: &[u8]) -> Result<Args<'_>, BadQuery> {
    // As nearly all are: one parameter, as it is.
    if let Some(topic) = query.strip_prefix(b"topic=")
        && topic.iter().all(|byte| !matches!(byte, b'&' | b'%' | b'+' | b';'))
    {
        return Ok(Args { topic: Some(Cow::Borrowed(topic)), ..Args::default() });
    }
    let mut args = Args::default();
    let mut rest = query;
    for _ in 0..HTTP_PARAMETERS_MAX {
        let parameter = Parameter::first_of(rest)?;
        let (key, value) = (parameter.decode(parameter.key)?, parameter.decode(parameter.value)?);
        let slot = match &*key {
            b"topic" => Some(&mut args.topic),
            b"channel" => Some(&mut args.channel),
            b"node" => Some(&mut args.node),
            _ => None,
        };
        if let Some(slot) = slot {
            slot.get_or_insert(value);
        }
        match parameter.rest {
            Some(more) => rest = more,
            None => return Ok(args),
        }
    }
    Err(BadQuery)
}

/// One parameter of a query, as received.
struct Parameter<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// It holds what is to be decoded.
    coded: bool,
    /// What follows the `&` behind it.
    rest: Option<&'a [u8]>,
}

impl<'a> Parameter<'a> {
    /// In one pass: most queries are one short parameter.
    fn first_of(query: &'a [u8]) -> Result<Self, BadQuery> {
        let (mut equals, mut end, mut coded) = (None, query.len(), false);
        for (at, byte) in query.iter().enumerate() {
            match byte {
                b'&' => {
                    end = at;
                    break;
                }
                b'=' if equals.is_none() => equals = Some(at),
                b'%' | b'+' => coded = true,
                b';' => return Err(BadQuery),
                _ => {}
            }
        }
        let (key_end, value_start) = equals.map_or((end, end), |at| (at, at + 1));
        let (key, value) = (&query[..key_end], &query[value_start..end]);
        Ok(Self { key, value, coded, rest: query.get(end + 1..) })
    }

    fn decode(&self, raw: &'a [u8]) -> Result<Cow<'a, [u8]>, BadQuery> {
        if self.coded { decode(raw, b' ').ok_or(BadQuery) } else { Ok(Cow::Borrowed(raw)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_argument_counts() {
        let args = args(b"x&topic=a&&topic=b&node&channel=%23+%2B=&node=n").unwrap();
        assert_eq!(args.topic, Some(Cow::Borrowed(&b"a"[..])));
        assert_eq!(args.channel, Some(Cow::Borrowed(&b"# +="[..])));
        assert_eq!(args.node, Some(Cow::Borrowed(&b""[..])));
        assert_eq!(super::args(b""), Ok(Args::default()));
    }

    #[test]
    fn keys_are_decoded_and_keep_their_case() {
        assert_eq!(*args(b"t%6Fpic=a").unwrap().topic.unwrap(), *b"a");
        assert_eq!(args(b"Topic=a&t+opic=b&=topic"), Ok(Args::default()));
    }

    #[test]
    fn plain_values_are_borrowed() {
        let args = args(b"topic=a#ephemeral").unwrap();
        assert!(matches!(args.topic, Some(Cow::Borrowed(b"a#ephemeral"))));
    }

    #[test]
    fn one_bad_parameter_spoils_the_query() {
        for query in ["topic=a&x=%", "topic=a&%4=1", "topic=a;b", ";", "a=%g1", "%"] {
            assert_eq!(args(query.as_bytes()), Err(BadQuery), "{query}");
        }
        assert!(args(b"topic=%3B").is_ok());
    }

    #[test]
    fn parameters_are_counted() {
        let query = |separators| format!("topic=a{}", "&".repeat(separators));
        assert!(args(query(HTTP_PARAMETERS_MAX - 1).as_bytes()).is_ok());
        assert_eq!(args(query(HTTP_PARAMETERS_MAX).as_bytes()), Err(BadQuery));
    }
}
