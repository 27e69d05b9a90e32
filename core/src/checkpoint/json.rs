//! JSON exactly as Go's `encoding/json` writes it: compact, and with `<`, `>`, `&` and the two Unicode line
//! separators escaped. Field order is the order of the Rust fields.

use std::io::{self, Write};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::Formatter;

/// The encoding of `value`.
pub fn to_go_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, GoFormatter);
    value
        .serialize(&mut serializer)
        .expect("plain structs and strings always encode");
    out
}

/// Go writes a list that was never set as `null`.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, character) in fragment.char_indices() {
            let escape = match character {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            writer.write_all(escape.as_bytes())?;
            plain = at + character.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = "<a>&\u{2028}\u{2029}\"\\/\n\t\u{8}\u{1}é\u{7f}";
        let expected =
            r#""\u003ca\u003e\u0026\u2028\u2029\"\\/\n\t\b\u0001é"#.to_owned() + "\u{7f}\"";
        assert_eq!(String::from_utf8(to_go_json(&text)).unwrap(), expected);
    }
}
