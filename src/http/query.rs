//! Query arguments, parsed as by Go's `net/url`.

use std::borrow::Cow;

use memchr::memchr;

use super::target::{cut, decode};
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
    /// `wait`, which stock does not look at, nor at those that follow.
    pub wait: Option<Cow<'a, [u8]>>,
    /// `since`
    pub since: Option<Cow<'a, [u8]>>,
    /// `zone`
    pub zone: Option<Cow<'a, [u8]>>,
    /// `region`
    pub region: Option<Cow<'a, [u8]>>,
    /// `strict`
    pub strict: Option<Cow<'a, [u8]>>,
    /// `channels`
    pub channels: Option<Cow<'a, [u8]>>,
    /// `topics`
    pub topics: Option<Cow<'a, [u8]>>,
    /// `nodes`
    pub nodes: Option<Cow<'a, [u8]>>,
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
    if memchr(b';', query).is_some() {
        return Err(BadQuery);
    }
    let mut args = Args::default();
    for (count, pair) in query.split(|&b| b == b'&').enumerate() {
        if count == HTTP_PARAMETERS_MAX {
            return Err(BadQuery);
        }
        let (key, value) = cut(pair, b'=');
        let (key, value) = (decode(key, b' ').ok_or(BadQuery)?, decode(value, b' ').ok_or(BadQuery)?);
        let slot = match &*key {
            b"topic" => &mut args.topic,
            b"channel" => &mut args.channel,
            b"node" => &mut args.node,
            b"wait" => &mut args.wait,
            b"since" => &mut args.since,
            b"zone" => &mut args.zone,
            b"region" => &mut args.region,
            b"strict" => &mut args.strict,
            b"channels" => &mut args.channels,
            b"topics" => &mut args.topics,
            b"nodes" => &mut args.nodes,
            _ => continue,
        };
        slot.get_or_insert(value);
    }
    Ok(args)
}

/// Every value of `topic`, in order, of a query that [`args`] has taken.
pub fn topics(query: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let pairs = query.split(|&b| b == b'&').map(|pair| cut(pair, b'='));
    let topics = pairs.filter(|(key, _)| decode(key, b' ').is_some_and(|key| *key == *b"topic"));
    topics.filter_map(|(_, value)| decode(value, b' ')).collect()
}

/// The first value of one argument, among those of any endpoint.
///
/// # Errors
/// As [`args`], but for what stands behind it.
pub fn value<'a>(query: &'a [u8], wanted: &[u8]) -> Result<Option<Cow<'a, [u8]>>, BadQuery> {
    for pair in query.split(|&b| b == b'&').take(HTTP_PARAMETERS_MAX) {
        let (key, value) = cut(pair, b'=');
        if *decode(key, b' ').ok_or(BadQuery)? == *wanted {
            return decode(value, b' ').ok_or(BadQuery).map(Some);
        }
    }
    Ok(None)
}

/// The topic that a request asks for, if it begins like most lookups; a guess that nothing but speed may depend on.
pub fn asked_topic(request: &[u8]) -> Option<&[u8]> {
    let rest = request.strip_prefix(b"GET /lookup?topic=")?;
    Some(cut(rest, b' ').0)
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
    fn the_topic_of_a_usual_lookup_is_guessed() {
        assert_eq!(asked_topic(b"GET /lookup?topic=a HTTP/1.1\r\n"), Some(&b"a"[..]));
        assert_eq!(asked_topic(b"GET /lookup?topic=a&x=b"), Some(&b"a&x=b"[..]));
        assert_eq!(asked_topic(b"GET /lookup?topic="), Some(&b""[..]));
        assert_eq!(asked_topic(b"GET /lookup?topic"), None);
    }

    #[test]
    fn parameters_are_counted() {
        let query = |separators| format!("topic=a{}", "&".repeat(separators));
        assert!(args(query(HTTP_PARAMETERS_MAX - 1).as_bytes()).is_ok());
        assert_eq!(args(query(HTTP_PARAMETERS_MAX).as_bytes()), Err(BadQuery));
    }
}
