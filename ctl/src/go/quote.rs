//! Go's quoted strings, over bytes: `%q` as written, `"..."` and `` `...` `` as read.

/// `strconv.Quote`: bytes that are not UTF-8 become `\xNN`, characters that cannot be seen become escapes.
pub(crate) fn quote(text: &[u8]) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            quote_character(character, &mut quoted);
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

fn quote_character(character: char, quoted: &mut String) {
    match character {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        character if is_printable(character) => quoted.push(character),
        character => match u32::from(character) {
            code @ (0..0x20 | 0x7f) => quoted.push_str(&format!("\\x{code:02x}")),
            code @ 0..0x10000 => quoted.push_str(&format!("\\u{code:04x}")),
            code => quoted.push_str(&format!("\\U{code:08x}")),
        },
    }
}

/// Go's `IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space. Rust's own escaping knows the same
/// tables, but keeps combining marks apart and has its own idea of quotes, which are settled before.
fn is_printable(character: char) -> bool {
    let is_mark = matches!(character, '\u{300}'..='\u{36f}');
    is_mark || matches!(character, '\'') || character.escape_debug().count() == 1
}

/// Reads a quoted string at the start of the text; gives its bytes and what follows it.
pub(crate) fn unquote_prefix(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if let [b'`', rest @ ..] = text {
        let end = rest.iter().position(|&byte| byte == b'`')?;
        return Some((rest[..end].to_vec(), &rest[end + 1..]));
    }
    let mut rest = text.strip_prefix(b"\"")?;
    let mut bytes = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((bytes, after)),
            [b'\\', escape @ ..] => rest = unescape(escape, &mut bytes)?,
            [b'\n', ..] | [] => return None,
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

/// Reads what follows a backslash.
fn unescape<'a>(escape: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = escape.split_first()?;
    let simple = match kind {
        b'a' => Some(0x07),
        b'b' => Some(0x08),
        b'f' => Some(0x0c),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(0x0b),
        b'\\' | b'"' => Some(kind),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return Some(rest);
    }
    let digits = |text: &'a [u8], count: usize, base| -> Option<(u32, &'a [u8])> {
        let (digits, rest) = text.split_at_checked(count)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, base).ok()?;
        is_plain.then_some((value, rest))
    };
    let (value, rest) = match kind {
        b'x' => digits(rest, 2, 16)?,
        b'0'..=b'7' => digits(escape, 3, 8)?,
        b'u' | b'U' => {
            let (value, rest) = digits(rest, if kind == b'u' { 4 } else { 8 }, 16)?;
            let character = char::from_u32(value)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(u8::try_from(value).ok()?);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for (text, quoted) in [
            (&b"va\"l"[..], r#""va\"l""#),
            (b"a\xffb", r#""a\xffb""#),
            ("é☺".as_bytes(), "\"é☺\""),
            (b"\x01\x7f\n\0", r#""\x01\x7f\n\x00""#),
            (
                "\u{a0}\u{200b}\u{e000}".as_bytes(),
                r#""\u00a0\u200b\ue000""#,
            ),
            (b"it's", "\"it's\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in [
            &b"plain"[..],
            b"\x00\xff\"\\\n",
            "é\u{a0}\u{1f600}".as_bytes(),
        ] {
            let quoted = quote(text);
            assert_eq!(
                unquote_prefix(quoted.as_bytes()),
                Some((text.to_vec(), &b""[..]))
            );
        }
    }

    #[test]
    fn all_escapes_are_read_and_others_refused() {
        let read = |text: &str| unquote_prefix(text.as_bytes()).map(|(bytes, _)| bytes);
        assert_eq!(read(r#""\x41\101\u00e9""#), Some("AAé".into()));
        assert_eq!(read("`a\\n`"), Some(b"a\\n".to_vec()));
        for wrong in [
            r#""a"#,
            r#""\q""#,
            r#""\x4""#,
            r#""\777""#,
            r#""\ud800""#,
            "a",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
