//! Conditional requests (RFC 9110, 13.1.2), and those that wait for a change.
//!
//! A request with `If-None-Match` is responded to with 304 when what it would show is what its client has. With `wait`
//! beside it, it waits until that is not so any more, for so long at most. A `wait` alone means nothing: a client that
//! polls may have it in its address.

use std::time::Duration;

use super::headers::elements;
use super::status::{ApiError, INVALID_ARG_WAIT};
use crate::limits::LONG_POLL_MAX;
use crate::options::parse_duration;
use crate::registry::Tag;

/// What a request makes its response depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Condition<'a> {
    /// Nothing.
    #[default]
    None,
    /// It has `If-None-Match`, and this is its value.
    NoneMatch { tags: &'a [u8], wait: Duration },
    /// The same, of one that has waited since it was compared with what this was the tag of; `None` where there was nothing.
    Waited { tags: &'a [u8], seen: Option<Tag>, is_over: bool },
}

/// What to do with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Respond as without a condition.
    Respond,
    NotModified,
    /// Wait until what it shows has another tag.
    Wait(Duration),
}

impl<'a> Condition<'a> {
    /// That of a request whose `If-None-Match` and `wait` are these.
    ///
    /// # Errors
    /// `INVALID_ARG_WAIT` for a `wait` that is no duration and would count.
    pub fn new(if_none_match: Option<&'a [u8]>, wait: Option<&[u8]>) -> Result<Self, ApiError> {
        let Some(tags) = if_none_match else { return Ok(Self::None) };
        let wait = wait.map_or(Ok(Duration::ZERO), |wait| {
            let text = str::from_utf8(wait).map_err(|_| INVALID_ARG_WAIT)?;
            parse_duration(text).map_err(|_| INVALID_ARG_WAIT)
        })?;
        Ok(Self::NoneMatch { tags, wait: wait.min(LONG_POLL_MAX) })
    }

    /// Decides for a response with this tag; `None` where there is nothing to respond with, for which a request that could
    /// wait does so.
    pub fn verdict(self, tag: Option<Tag>) -> Verdict {
        match self {
            Self::None => Verdict::Respond,
            Self::NoneMatch { tags, wait } => match tag {
                Some(tag) if !matches(tags, tag) => Verdict::Respond,
                _ if !wait.is_zero() => Verdict::Wait(wait),
                Some(_) => Verdict::NotModified,
                None => Verdict::Respond,
            },
            Self::Waited { seen, is_over: false, .. } if seen == tag => Verdict::Wait(Duration::ZERO),
            Self::Waited { tags, seen, .. } => match tag {
                Some(tag) if seen == Some(tag) => Verdict::NotModified,
                // Any tag at all has been waited for.
                Some(tag) if tags != b"*" && matches(tags, tag) => Verdict::NotModified,
                _ => Verdict::Respond,
            },
        }
    }
}

/// Whether an `If-None-Match` names the tag, compared weakly.
pub(super) fn matches(if_none_match: &[u8], tag: Tag) -> bool {
    if_none_match == b"*"
        || elements(if_none_match).any(|element| {
            let element = element.strip_prefix(b"W/").unwrap_or(element);
            element.starts_with(b"\"") && Tag::parse(element) == Some(tag)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tag() -> Tag {
        Tag::of(b"content")
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        let own = tag().to_string();
        for (value, expected) in [
            (format!("\"{own}\""), true),
            (format!("W/\"{own}\""), true),
            (format!("\"a\", W/\"b\" ,\t\"{own}\""), true),
            (format!(", \"{own}\","), true),
            ("*".to_owned(), true),
            (own.clone(), false),
            (format!("w/\"{own}\""), false),
            (format!("\"{own}x\""), false),
            ("\"*\"".to_owned(), false),
            ("*, \"a\"".to_owned(), false),
            (String::new(), false),
            ("\"0123456789abcdef\"".to_owned(), false),
        ] {
            assert_eq!(matches(value.as_bytes(), tag()), expected, "{value}");
        }
    }

    #[test]
    fn a_wait_counts_beside_a_tag_alone() {
        let of = |tags: Option<&'static str>, wait: Option<&str>| {
            Condition::new(tags.map(str::as_bytes), wait.map(str::as_bytes))
        };
        assert_eq!(of(None, Some("nonsense")), Ok(Condition::None));
        let tags = b"*".as_slice();
        for (wait, expected) in [
            (None, Duration::ZERO),
            (Some("0"), Duration::ZERO),
            (Some("1s"), SECOND),
            (Some("1m0.5s"), LONG_POLL_MAX),
            (Some("9999h"), LONG_POLL_MAX),
        ] {
            assert_eq!(of(Some("*"), wait), Ok(Condition::NoneMatch { tags, wait: expected }), "{wait:?}");
        }
        for wait in ["", "1", "-1s", "s", "30", "\u{b5}"] {
            assert_eq!(of(Some("*"), Some(wait)), Err(INVALID_ARG_WAIT), "{wait}");
        }
    }

    #[test]
    fn a_request_waits_while_its_client_has_what_it_would_get() {
        let own = format!("\"{}\"", tag());
        let other = Tag::of(b"other");
        let verdict = |tags: &str, wait, tag| Condition::NoneMatch { tags: tags.as_bytes(), wait }.verdict(tag);
        assert_eq!(Condition::None.verdict(Some(tag())), Verdict::Respond);
        assert_eq!(verdict(&own, Duration::ZERO, Some(tag())), Verdict::NotModified);
        assert_eq!(verdict(&own, SECOND, Some(tag())), Verdict::Wait(SECOND));
        assert_eq!(verdict(&own, SECOND, Some(other)), Verdict::Respond);
        assert_eq!(verdict(&own, SECOND, None), Verdict::Wait(SECOND));
        assert_eq!(verdict(&own, Duration::ZERO, None), Verdict::Respond);
        let waited = |tags: &str, is_over, now| {
            Condition::Waited { tags: tags.as_bytes(), seen: Some(tag()), is_over }.verdict(now)
        };
        for tags in [&own, "*"] {
            assert_eq!(waited(tags, false, Some(tag())), Verdict::Wait(Duration::ZERO));
            assert_eq!(waited(tags, true, Some(tag())), Verdict::NotModified);
            assert_eq!(waited(tags, false, Some(other)), Verdict::Respond);
            assert_eq!(waited(tags, false, None), Verdict::Respond);
        }
        assert_eq!(waited(&format!("{own}, \"{other}\""), false, Some(other)), Verdict::NotModified);
    }
}
