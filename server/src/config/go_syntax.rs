//! Numbers, truth values and durations as Go's flag package reads them, since scripts written for etcd rely on it:
//! `0x10` and `1_000` are numbers, `T` is true, `1h15m30.918s` is a duration.
//!
//! Owns text to value and, for durations, back. Never decides whether a value makes sense.

/// Why a text is not a value; the words are those Go prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misread {
    /// Not of that form.
    Syntax,
    /// Of that form, but too large or too small.
    Range,
}

impl Misread {
    /// The text for a message.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Syntax => "parse error",
            Self::Range => "value out of range",
        }
    }
}

/// `1`, `t`, `TRUE`, `false`, … and nothing else.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number with an optional sign and base prefix.
pub(crate) fn parse_signed(text: &str) -> Result<i64, Misread> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| Misread::Range)
}

/// A whole number without a sign: decimal, `0x`, `0o`, `0b` or a leading zero for octal, `_` between digits.
pub(crate) fn parse_unsigned(text: &str) -> Result<u64, Misread> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let has_prefix = digits.len() < lower.len();
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !has_prefix) {
        return Err(Misread::Syntax);
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(Misread::Syntax);
    }
    u64::from_str_radix(&digits, radix).map_err(|_| Misread::Range)
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration such as `1h15m30.918s`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, Misread> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Misread::Syntax);
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(Misread::Syntax)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, unit_ns) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(Misread::Syntax)?;
        total += scaled(number, *unit_ns)?;
        if total > i128::from(i64::MAX) + 1 {
            return Err(Misread::Syntax);
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| Misread::Syntax)
}

/// `number` (digits with at most one point) times `unit_ns`, cut to whole nanoseconds.
fn scaled(number: &str, unit_ns: i128) -> Result<i128, Misread> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return Err(Misread::Syntax);
    }
    // Eighteen digits of a fraction are more than a nanosecond of an hour needs.
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| Misread::Syntax)?
    };
    let numerator: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| Misread::Syntax)?
    };
    let places = u32::try_from(fraction.len()).expect("at most 18");
    Ok(whole * unit_ns + numerator * unit_ns / 10_i128.pow(places))
}

/// A duration as Go prints it: `1h15m0s`, `1.5s`, `300ms`, `0s`.
pub(crate) fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(total, 1_000_000)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = decimal(total % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` without trailing zeros; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let places = unit.ilog10() as usize;
    format!("{whole}.{fraction:0places$}")
        .trim_end_matches('0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, want) in [
            ("10", 10),
            ("0x1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0", 0),
        ] {
            assert_eq!(parse_unsigned(text), Ok(want), "{text}");
        }
        for text in ["", "-1", "1__0", "_1", "1_", "0x", "08", "1.5", "a"] {
            assert_eq!(parse_unsigned(text), Err(Misread::Syntax), "{text}");
        }
        assert_eq!(parse_unsigned("18446744073709551616"), Err(Misread::Range));
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err(Misread::Range));
        assert_eq!(parse_signed("--1"), Err(Misread::Syntax));
    }

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        for (text, nanoseconds, printed) in [
            ("1h15m30.918s", 4_530_918_000_000, "1h15m30.918s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("0", 0, "0s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("3us", 3_000, "3µs"),
            ("1m0.000000001s", 60_000_000_001, "1m0.000000001s"),
        ] {
            assert_eq!(parse_duration(text), Ok(nanoseconds), "{text}");
            assert_eq!(duration_text(nanoseconds), printed);
        }
        for text in ["", "-", "5", "1d", ".s", "1..5s", "s", "1 s", "9999999h"] {
            assert_eq!(parse_duration(text), Err(Misread::Syntax), "{text}");
        }
    }
}
