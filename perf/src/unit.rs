//! Values with their units, for people.

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// For each CPU second of the server.
    PerCpuSecond,
    /// For each second that passed: the client can be the limit of this.
    PerSecond,
    /// How many there were.
    Count,
    Bytes,
    Seconds,
    /// Of a core, 1 for all of it.
    Share,
    /// One value as a multiple of another.
    Times,
}

/// A value with its unit.
pub fn quantity(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerCpuSecond | Unit::PerSecond | Unit::Count => significant(value),
        Unit::Bytes => bytes(value),
        Unit::Seconds => time(value),
        Unit::Share => format!("{} %", significant(value * 100.0)),
        Unit::Times => times(value),
    }
}

/// A multiple.
pub fn times(value: f64) -> String {
    format!("{}x", significant(value))
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn approximate(number: u64) -> f64 {
    number as f64
}

pub fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{} s", significant(seconds)),
        1e-3.. => format!("{} ms", significant(seconds * 1e3)),
        _ => format!("{} us", significant(seconds * 1e6)),
    }
}

pub fn bytes(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{} GB", significant(bytes / 1e9)),
        1e6.. => format!("{} MB", significant(bytes / 1e6)),
        1e3.. => format!("{} KB", significant(bytes / 1e3)),
        _ => format!("{} B", significant(bytes)),
    }
}

/// Three digits, more only before the decimal point.
pub fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 99.95.. => 0,
        9.995.. => 1,
        0.9995.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.parse() {
        Ok(whole) => grouped(whole),
        Err(_) => text,
    }
}

/// Thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        let texts =
            [(0.0, "0"), (0.0213, "0.021"), (0.5, "0.500"), (9.994, "9.99"), (99.94, "99.9"), (99.96, "100")];
        for (value, text) in texts.into_iter().chain([(1234.4, "1,234"), (58_012.3, "58,012"), (1e6, "1,000,000")])
        {
            assert_eq!(significant(value), text, "{value}");
        }
    }

    #[test]
    fn units_suit_the_size() {
        assert_eq!(quantity(Unit::Seconds, 0.000_078), "78.0 us");
        assert_eq!(quantity(Unit::Seconds, 0.133), "133 ms");
        assert_eq!(quantity(Unit::Seconds, 30.0), "30.0 s");
        assert_eq!(quantity(Unit::Bytes, 345e6), "345 MB");
        assert_eq!(quantity(Unit::Bytes, 63.0), "63.0 B");
        assert_eq!(quantity(Unit::PerSecond, 21_605.0), "21,605");
        assert_eq!(quantity(Unit::Share, 0.0125), "1.25 %");
        assert_eq!(quantity(Unit::Times, 1.5), "1.50x");
    }
}
