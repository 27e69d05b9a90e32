//! Go's `strconv` for integers and booleans, with its error texts.

/// Why a text is no number, in Go's words.
fn refuse(function: &str, text: &[u8], reason: &str) -> String {
    let quoted = super::quote::quote(text);
    format!("strconv.{function}: parsing {quoted}: {reason}")
}

/// `strconv.ParseInt(text, base, 64)`; base 0 reads the prefixes `0x`, `0o`, `0b` and `0`, and skips underscores
/// between digits.
pub(crate) fn parse_int(text: &[u8], base: u32) -> Result<i64, String> {
    let refuse = |reason| refuse("ParseInt", text, reason);
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let magnitude = magnitude(digits, base).map_err(refuse)?;
    let value = i128::from(magnitude) * if is_negative { -1 } else { 1 };
    i64::try_from(value).map_err(|_| refuse(OUT_OF_RANGE))
}

/// `strconv.ParseUint(text, base, 64)`.
pub(crate) fn parse_uint(text: &[u8], base: u32) -> Result<u64, String> {
    magnitude(text, base).map_err(|reason| refuse("ParseUint", text, reason))
}

/// `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(refuse("ParseBool", text.as_bytes(), INVALID)),
    }
}

const INVALID: &str = "invalid syntax";
const OUT_OF_RANGE: &str = "value out of range";

fn magnitude(digits: &[u8], base: u32) -> Result<u64, &'static str> {
    let (base, digits, allows_underscores) = match (base, digits) {
        (0, [b'0', b'x' | b'X', rest @ ..]) => (16, rest, true),
        (0, [b'0', b'o' | b'O', rest @ ..]) => (8, rest, true),
        (0, [b'0', b'b' | b'B', rest @ ..]) => (2, rest, true),
        (0, [b'0', rest @ ..]) if !rest.is_empty() => (8, rest, true),
        (0, rest) => (10, rest, true),
        (base, rest) => (base, rest, false),
    };
    if digits.is_empty() {
        return Err(INVALID);
    }
    let mut value: Option<u64> = Some(0);
    for &digit in digits {
        if digit == b'_' && allows_underscores {
            continue;
        }
        let digit = char::from(digit).to_digit(base).ok_or(INVALID)?;
        value = value
            .and_then(|value| value.checked_mul(u64::from(base)))
            .and_then(|value| value.checked_add(u64::from(digit)));
    }
    value.ok_or(OUT_OF_RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_go_reads_them() {
        assert_eq!(parse_int(b"-12", 10), Ok(-12));
        assert_eq!(parse_int(b"ff", 16), Ok(255));
        assert_eq!(parse_int(b"0x1_0", 0), Ok(16));
        assert_eq!(parse_int(b"010", 0), Ok(8));
        assert_eq!(parse_int(b"0", 0), Ok(0));
        assert_eq!(parse_int(b"-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_uint(b"ffffffffffffffff", 16), Ok(u64::MAX));
    }

    #[test]
    fn errors_have_gos_words() {
        let error = |text: &str| parse_int(text.as_bytes(), 10).unwrap_err();
        assert_eq!(
            error("zz"),
            r#"strconv.ParseInt: parsing "zz": invalid syntax"#
        );
        assert_eq!(error(""), r#"strconv.ParseInt: parsing "": invalid syntax"#);
        assert_eq!(
            error("99999999999999999999"),
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#
        );
        assert!(parse_bool("yes").is_err());
    }
}
