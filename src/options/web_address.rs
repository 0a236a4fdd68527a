//! The address of a web page that others link to.

use std::str::FromStr;

/// An address of HTTP or HTTPS without a slash at its end, or none. Whoever follows a link to it runs no script: it can have no
/// other scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebAddress(String);

/// The text is no address of HTTP or HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWeb;

impl WebAddress {
    /// Empty for none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebAddress {
    type Err = NotWeb;

    fn from_str(text: &str) -> Result<Self, NotWeb> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let is_whole = |rest: &str| {
            let has_host = !rest.starts_with('/') && !rest.is_empty();
            has_host
                && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || ['?', '#', '"'].contains(&c))
        };
        if text.is_empty() || rest.is_some_and(is_whole) {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(NotWeb)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_scheme_of_the_web_and_a_host() {
        for (text, expected) in [
            ("", Some("")),
            ("http://n:4171", Some("http://n:4171")),
            ("https://ops.example/nsqadmin/", Some("https://ops.example/nsqadmin")),
            ("n:4171", None),
            ("javascript:alert(1)", None),
            ("http://", None),
            ("http:///x", None),
            ("http://n/?x", None),
            ("http://n/#x", None),
            ("http://n o", None),
        ] {
            let address = text.parse::<WebAddress>();
            assert_eq!(address.as_ref().map(WebAddress::as_str).ok(), expected, "{text}");
        }
    }
}
