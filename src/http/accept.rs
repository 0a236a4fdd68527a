//! What a client would rather have: OpenMetrics, or Prometheus's older text format, which everybody else gets; and whether it
//! is a browser that is to show a page.

use super::headers::{elements, trim};

/// Whether the value of an `Accept` header asks for OpenMetrics 1.0: by its name, and not less than for plain text. A
/// client that takes anything gets plain text.
pub(super) fn openmetrics(value: &[u8]) -> bool {
    let quality = |name: &[u8]| elements(value).filter_map(|range| quality_of(range, name)).max().unwrap_or(0);
    let wanted = quality(b"application/openmetrics-text");
    wanted > 0 && wanted >= quality(b"text/plain")
}

/// Whether the value of an `Accept` header names HTML, as that of a browser does that is to show a page.
pub(super) fn html(value: &[u8]) -> bool {
    elements(value).any(|range| quality_of(range, b"text/html").is_some_and(|quality| quality > 0))
}

/// The quality of a media range in thousandths, when it is of this type and of a version that there is.
fn quality_of(range: &[u8], name: &[u8]) -> Option<u16> {
    let mut parts = range.split(|&byte| byte == b';').map(trim);
    if !parts.next()?.eq_ignore_ascii_case(name) {
        return None;
    }
    let mut quality = 1000;
    for parameter in parts {
        match parameter {
            [b'q' | b'Q', b'=', value @ ..] => quality = thousandths(value)?,
            [b'v', b'e', b'r', b's', b'i', b'o', b'n', b'=', version @ ..] => {
                let known: &[&[u8]] = &[b"1.0.0", b"0.0.1", b"0.0.4"];
                if !known.contains(&version) {
                    return None;
                }
            }
            _ => {}
        }
    }
    Some(quality)
}

/// `0`, `1`, or a fraction of up to three digits.
fn thousandths(text: &[u8]) -> Option<u16> {
    let quality: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    (0.0..=1.0).contains(&quality).then_some((quality * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::{html, openmetrics};

    #[test]
    fn html_is_for_browsers() {
        for (value, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML;q=0.1", true),
            ("text/html;q=0", false),
            ("*/*", false),
            ("application/vnd.nsq; version=1.0", false),
            ("", false),
        ] {
            assert_eq!(html(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        for (value, expected) in [
            // Prometheus 2.42 and 3.5.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text ; version=1.0.0", true),
            ("application/openmetrics-text; q=0.5, text/plain; q=0.5", true),
            ("application/openmetrics-text; q=0.4, text/plain; q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text;q=x", false),
            ("text/plain", false),
            ("*/*", false),
            ("application/vnd.nsq; version=1.0", false),
            ("", false),
        ] {
            assert_eq!(openmetrics(value.as_bytes()), expected, "{value}");
        }
    }
}
