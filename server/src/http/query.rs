//! The query of a URL, read as forms are encoded.

/// The values of `name`, in order.
pub(super) fn values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty());
    pairs
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key)? == name).then(|| decoded(value)).flatten()
        })
        .collect()
}

/// The text with `+` and `%41` resolved; none if it is not well formed, which drops the pair.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_kept_in_order() {
        let query = Some("a=1&b&exclude=NO%53PACE&exclude=x+y&a=2&%61=3&bad=%zz&bad=%4");
        assert_eq!(values(query, "a"), ["1", "2", "3"]);
        assert_eq!(values(query, "b"), [""]);
        assert_eq!(values(query, "exclude"), ["NOSPACE", "x y"]);
        assert!(values(query, "bad").is_empty() && values(None, "a").is_empty());
    }
}
