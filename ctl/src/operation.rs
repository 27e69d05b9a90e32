//! The lines of a transaction: compares and operations, in etcdctl's syntax.
//!
//! ```text
//!   mod("key") > "0"              target("quoted key") operator "quoted value"
//!   put key "a value" --prev-kv   put, get, del with their flags; words split as below
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::{Parser, Subcommand};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;

use crate::commands::{del, get, put};
use crate::failure::{Exit, Failure};
use crate::go::number::parse_int;
use crate::go::quote::{quote, unquote_prefix};

/// Splits a line into words: `"double quoted"` with escapes, `'single quoted'` as it stands, or anything without a blank.
pub(crate) fn split_words(line: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let is_blank = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => quoted_length(rest),
            b'\'' => rest[1..]
                .iter()
                .position(|&byte| byte == b'\'')
                .map(|at| at + 2),
            _ if is_blank(&first) => None,
            _ => Some(rest.iter().position(is_blank).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            // A blank, or a quote that is never closed, which etcdctl passes over, too.
            rest = &rest[1..];
            continue;
        };
        let (word, after) = rest.split_at(length);
        rest = after;
        words.push(match first {
            b'\'' => word[1..length - 1].to_vec(),
            b'"' => match unquote_prefix(word) {
                Some((bytes, _)) => bytes,
                None => return Err(Failure::new(Exit::Input, "invalid syntax")),
            },
            _ => word.to_vec(),
        });
    }
    Ok(words)
}

/// From the opening to the closing quote.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[derive(Parser)]
#[command(
    no_binary_name = true,
    infer_subcommands = true,
    args_override_self = true
)]
struct Line {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand)]
enum Operation {
    Get(get::Get),
    Put(put::Put),
    Del(del::Del),
}

/// Reads `put ...`, `get ...` or `del ...`.
pub(crate) fn parse_operation(line: &[u8]) -> Result<pb::RequestOp, Failure> {
    let shown = String::from_utf8_lossy(line);
    let words = split_words(line)?;
    if words.len() < 2 {
        let message = format!("invalid txn compare request: {shown}");
        return Err(Failure::new(Exit::Input, message));
    }
    let words = words.into_iter().map(OsString::from_vec);
    let command = crate::cli::as_cobra(<Line as clap::CommandFactory>::command());
    let parsed = command
        .try_get_matches_from(words)
        .and_then(|matches| <Line as clap::FromArgMatches>::from_arg_matches(&matches));
    let line =
        parsed.map_err(|_| Failure::new(Exit::Input, format!("invalid txn request: {shown}")))?;
    let request = match line.operation {
        Operation::Get(get) => Request::RequestRange(get.request()?),
        Operation::Put(put) => Request::RequestPut(put.request(put::Stdin::Taken)?),
        Operation::Del(del) => Request::RequestDeleteRange(del.request()?),
    };
    Ok(pb::RequestOp {
        request: Some(request),
    })
}

/// Reads `target("key") operator "value"`.
pub(crate) fn parse_compare(line: &[u8]) -> Result<pb::Compare, Failure> {
    let shown = String::from_utf8_lossy(line);
    let refuse = |message: String| Failure::new(Exit::Input, message);
    let Some(open) = line.iter().position(|&byte| byte == b'(') else {
        return Err(refuse(format!("malformed comparison: {shown}")));
    };
    let target = String::from_utf8_lossy(&line[..open]);
    let parts = Parts::scan(&line[open + 1..]);
    let Some(value) = &parts.value else {
        return Err(refuse(format!(
            "malformed comparison: {shown}; got {target}({}) {} \"\"",
            quote(&parts.key),
            parts.operator
        )));
    };
    let number = |base| {
        parse_int(value, base).map_err(|_| refuse(format!("invalid txn compare request: {shown}")))
    };
    let (target, union) = match target.as_ref() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number(10)?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(value.clone().into()),
        ),
        // Here etcdctl 3.7.1 panics.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => {
            return Err(refuse(format!(
                "malformed comparison: {shown} (unknown target {other})"
            )));
        }
    };
    let result = match parts.operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        // Here, too.
        other => {
            return Err(refuse(format!(
                "malformed comparison: {shown} (unknown operator {other})"
            )));
        }
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: parts.key.into(),
        range_end: Default::default(),
        target_union: Some(union),
    })
}

/// What follows the opening parenthesis, as far as it could be read.
#[derive(Default)]
struct Parts {
    key: Vec<u8>,
    operator: String,
    value: Option<Vec<u8>>,
}

impl Parts {
    /// Go's `Sscanf` of `%q) %s %q`: blanks where the format has them, the parenthesis right after the key.
    fn scan(text: &[u8]) -> Self {
        let mut parts = Self::default();
        let Some((key, rest)) = unquote_prefix(text.trim_ascii_start()) else {
            return parts;
        };
        parts.key = key;
        let Some(rest) = rest.strip_prefix(b")").and_then(blanks) else {
            return parts;
        };
        let end = rest.iter().position(u8::is_ascii_whitespace);
        let (operator, rest) = rest.split_at(end.unwrap_or(rest.len()));
        parts.operator = String::from_utf8_lossy(operator).into_owned();
        parts.value = blanks(rest)
            .and_then(unquote_prefix)
            .map(|(value, _)| value);
        parts
    }
}

/// What follows one or more blanks.
fn blanks(text: &[u8]) -> Option<&[u8]> {
    let rest = text.trim_ascii_start();
    (rest.len() < text.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split_words(line.as_bytes()).expect("a legal line");
        words
            .into_iter()
            .map(|word| String::from_utf8(word).expect("UTF-8"))
            .collect()
    }

    fn message<T>(result: Result<T, Failure>) -> String {
        match result {
            Ok(_) => panic!("accepted"),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn words_are_split_as_etcdctl_splits_them() {
        assert_eq!(words(r#"put a1 "b\nc""#), ["put", "a1", "b\nc"]);
        assert_eq!(words("put a2 'x y'"), ["put", "a2", "x y"]);
        assert_eq!(words(r#"put a3 b"c d""#), ["put", "a3", "b\"c", "d\""]);
        assert_eq!(words("put 'a b"), ["put", "a", "b"]);
        assert_eq!(words(r#"  "" "#), [""]);
        assert!(split_words(br#"put "a\q""#).is_err());
    }

    #[test]
    fn compares_are_read() {
        let compare = parse_compare(br#"mod("a\x41") > "12" and so on"#).expect("legal");
        assert_eq!(&compare.key[..], b"aA");
        assert_eq!(compare.result(), CompareResult::Greater);
        assert_eq!(compare.target(), CompareTarget::Mod);
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(12)));
        let compare = parse_compare(br#"lease("a") != "ff""#).expect("legal");
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(255)));
        let compare = parse_compare(br#"val("a") = "x y""#).expect("legal");
        assert_eq!(compare.target_union, Some(TargetUnion::Value("x y".into())));
    }

    #[test]
    fn malformed_compares_are_refused_with_what_was_read() {
        for (line, expected) in [
            ("foo", "malformed comparison: foo\\n"),
            (r#"mod("a") > 0"#, r#"got mod(\"a\") > \"\""#),
            (r#"mod(a) > "0""#, r#"got mod(\"\")  \"\""#),
            (r#"mod("a")>"0""#, r#"got mod(\"a\")  \"\""#),
            (r#"mod("a" ) > "0""#, r#"got mod(\"a\")  \"\""#),
            (r#"foo("a") > "0""#, "(unknown target foo)"),
            (r#"mod ("a") = "0""#, "(unknown target mod )"),
            (r#"mod("a") >= "0""#, "(unknown operator >=)"),
            (r#"mod("a") > "x""#, "invalid txn compare request: mod"),
        ] {
            let message = message(parse_compare(line.as_bytes()));
            assert!(message.contains(expected), "{line}: {message}");
            assert!(message.contains("Input"), "{message}");
        }
    }

    #[test]
    fn operations_take_the_commands_flags() {
        let operation = parse_operation(b"ge --limit=1 --prefix a").expect("legal");
        let Some(Request::RequestRange(range)) = operation.request else {
            panic!("not a range");
        };
        assert_eq!(
            (&range.key[..], &range.range_end[..], range.limit),
            (&b"a"[..], &b"b"[..], 1)
        );
        let operation = parse_operation(b"put -- a -5").expect("legal");
        let Some(Request::RequestPut(put)) = operation.request else {
            panic!("not a put");
        };
        assert_eq!((&put.key[..], &put.value[..]), (&b"a"[..], &b"-5"[..]));
    }

    #[test]
    fn operations_that_are_none_are_refused() {
        for (line, expected) in [
            ("get", "invalid txn compare request: get"),
            ("foo a", "invalid txn request: foo a"),
            ("get a --foo", "invalid txn request: get a --foo"),
            ("put a", "needs 1 argument and input from stdin"),
            ("get a --order foo", "bad sort order foo"),
        ] {
            let message = message(parse_operation(line.as_bytes()));
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
