//! Histories as lines of JSON, one operation a line (docs/simulation.md says what the fields are).

use std::fmt;
use std::io::BufRead;

use serde_json::{Map, Value, json};

use super::{Answer, Compare, Found, History, Is, KeyValue, Keys, Operation, Step};

/// A line that cannot be read.
#[derive(Debug)]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Reads a history. Empty lines are skipped; the second list has the line of each operation.
pub fn read_lines(input: impl BufRead) -> Result<(History, Vec<usize>), LineError> {
    let (mut operations, mut lines) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(input.lines()) {
        let fail = |reason: String| LineError { line, reason };
        let text = text.map_err(|error| fail(error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        let fields = Fields::of(&value, "the line").map_err(fail)?;
        operations.push(operation(fields).map_err(fail)?);
        lines.push(line);
    }
    Ok((History(operations), lines))
}

/// An operation as a line, without its end.
pub fn write_line(operation: &Operation) -> String {
    let mut line = json!({"client": operation.client, "began_ns": operation.began_ns});
    let fields = line.as_object_mut().expect("an object");
    let is_plain = operation.compares.is_empty() && operation.failure.is_empty();
    match &operation.success[..] {
        [step] if is_plain => {
            let (name, value) = step_out(step);
            fields.insert(name.to_owned(), value);
        }
        _ => {
            let compares = operation.compares.iter().map(|compare| match &compare.is {
                Is::ModRevision(revision) => {
                    json!({"key": compare.key, "mod_revision": revision})
                }
                Is::Value(value) => json!({"key": compare.key, "value": value}),
            });
            let steps = |steps: &[Step]| -> Vec<_> {
                let one = |step| {
                    let (name, value) = step_out(step);
                    json!({name: value})
                };
                steps.iter().map(one).collect()
            };
            let txn = json!({
                "compare": compares.collect::<Vec<_>>(),
                "success": steps(&operation.success),
                "failure": steps(&operation.failure),
            });
            fields.insert("txn".to_owned(), txn);
        }
    }
    if let Some(answer) = &operation.answer {
        fields.insert("ended_ns".to_owned(), json!(answer.ended_ns));
        fields.insert("revision".to_owned(), json!(answer.revision));
        match &answer.results[..] {
            [found] if !fields.contains_key("txn") => fields.extend(found_out(found)),
            results => {
                let results = results.iter().map(|found| Value::Object(found_out(found)));
                fields.insert("succeeded".to_owned(), json!(answer.succeeded));
                fields.insert("results".to_owned(), results.collect());
            }
        }
    }
    line.to_string()
}

fn step_out(step: &Step) -> (&'static str, Value) {
    let keys = |keys: &Keys| match &keys.range_end {
        None => json!({"key": keys.key}),
        Some(end) => json!({"key": keys.key, "range_end": end}),
    };
    match step {
        Step::Put { key, value } => ("put", json!({"key": key, "value": value})),
        Step::Get(wanted) => ("get", keys(wanted)),
        Step::Delete(wanted) => ("delete", keys(wanted)),
    }
}

fn found_out(found: &Found) -> Map<String, Value> {
    let (name, value) = match found {
        Found::Put => return Map::new(),
        Found::Deleted(count) => ("deleted", json!(count)),
        Found::Got(kvs) => {
            let kvs = kvs.iter().map(
                |kv| json!({"key": kv.key, "value": kv.value, "mod_revision": kv.mod_revision}),
            );
            ("kvs", kvs.collect())
        }
    };
    Map::from_iter([(name.to_owned(), value)])
}

/// The fields of an object, taken one by one: what is left over is a mistake.
struct Fields<'a> {
    what: &'a str,
    object: &'a Map<String, Value>,
    taken: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, what: &'a str) -> Result<Self, String> {
        let object = value.as_object();
        Ok(Self {
            what,
            object: object.ok_or_else(|| format!("{what} must be an object"))?,
            taken: Vec::new(),
        })
    }

    fn take(&mut self, name: &'a str) -> Option<&'a Value> {
        self.taken.push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn want<T>(
        &mut self,
        name: &'a str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, String> {
        let what = self.what;
        let value = self.take(name);
        let value = value.ok_or_else(|| format!("{what} has no {name:?}"))?;
        read(value).ok_or_else(|| format!("{name:?} of {what} must be {kind}"))
    }

    fn text(&mut self, name: &'a str) -> Result<String, String> {
        self.want(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn time(&mut self, name: &'a str) -> Result<u64, String> {
        self.want(name, "a number of nanoseconds", Value::as_u64)
    }

    fn number(&mut self, name: &'a str) -> Result<i64, String> {
        self.want(name, "a number", Value::as_i64)
    }

    fn list(&mut self, name: &'a str) -> Result<&'a [Value], String> {
        self.want(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    fn end(self) -> Result<(), String> {
        let mut names = self.object.keys().map(String::as_str);
        match names.find(|name| !self.taken.contains(name)) {
            Some(name) => Err(format!("{} has an unknown field {name:?}", self.what)),
            None => Ok(()),
        }
    }
}

fn operation(mut fields: Fields<'_>) -> Result<Operation, String> {
    let client = match fields.take("client") {
        None => 0,
        Some(value) => value.as_u64().ok_or("\"client\" must be a number")?,
    };
    let began_ns = fields.time("began_ns")?;
    let plain = step(&mut fields)?;
    let txn = fields.take("txn");
    let asked = match (plain, txn) {
        (Some(step), None) => Operation::of(client, began_ns, step),
        (None, Some(txn)) => Operation {
            client,
            began_ns,
            ..transaction(txn)?
        },
        _ => return Err("the line must have one of put, get, delete and txn".to_owned()),
    };
    let answer = match fields.take("ended_ns") {
        None => None,
        Some(_) if txn.is_some() => {
            let succeeded = fields.want("succeeded", "true or false", Value::as_bool)?;
            let chosen = if succeeded {
                &asked.success
            } else {
                &asked.failure
            };
            let results = fields.list("results")?;
            if results.len() != chosen.len() {
                let (results, steps) = (results.len(), chosen.len());
                return Err(format!("there are {results} results of {steps} steps"));
            }
            let results = chosen.iter().zip(results).map(|(step, result)| {
                let mut result = Fields::of(result, "a result")?;
                let found = found(step, &mut result)?;
                result.end()?;
                Ok(found)
            });
            let results = results.collect::<Result<Vec<_>, String>>()?;
            Some(answer(&mut fields, succeeded, results)?)
        }
        Some(_) => {
            let results = vec![found(&asked.success[0], &mut fields)?];
            Some(answer(&mut fields, true, results)?)
        }
    };
    fields.end()?;
    Ok(Operation { answer, ..asked })
}

fn answer(fields: &mut Fields<'_>, succeeded: bool, results: Vec<Found>) -> Result<Answer, String> {
    Ok(Answer {
        ended_ns: fields.time("ended_ns")?,
        revision: fields.number("revision")?,
        succeeded,
        results,
    })
}

fn found(step: &Step, fields: &mut Fields<'_>) -> Result<Found, String> {
    Ok(match step {
        Step::Put { .. } => Found::Put,
        Step::Delete(_) => Found::Deleted(fields.number("deleted")?),
        Step::Get(_) => {
            let kvs = fields.list("kvs")?.iter().map(|kv| {
                let mut kv = Fields::of(kv, "one of \"kvs\"")?;
                let read = KeyValue {
                    key: kv.text("key")?,
                    value: kv.text("value")?,
                    mod_revision: kv.number("mod_revision")?,
                };
                kv.end()?;
                Ok(read)
            });
            Found::Got(kvs.collect::<Result<_, String>>()?)
        }
    })
}

fn transaction(txn: &Value) -> Result<Operation, String> {
    let mut txn = Fields::of(txn, "\"txn\"")?;
    let compares = txn.list("compare")?.iter().map(|compare| {
        let mut compare = Fields::of(compare, "one of \"compare\"")?;
        let key = compare.text("key")?;
        let is = if compare.object.contains_key("value") {
            Is::Value(compare.text("value")?)
        } else {
            Is::ModRevision(compare.number("mod_revision")?)
        };
        compare.end()?;
        Ok(Compare { key, is })
    });
    let compares = compares.collect::<Result<_, String>>()?;
    let (success, failure) = (steps(txn.list("success")?)?, steps(txn.list("failure")?)?);
    txn.end()?;
    Ok(Operation {
        client: 0,
        began_ns: 0,
        compares,
        success,
        failure,
        answer: None,
    })
}

fn steps(list: &[Value]) -> Result<Vec<Step>, String> {
    let one = |value| {
        let mut fields = Fields::of(value, "a step")?;
        let step = step(&mut fields)?;
        fields.end()?;
        step.ok_or_else(|| "a step must have one of put, get and delete".to_owned())
    };
    list.iter().map(one).collect()
}

fn step(fields: &mut Fields<'_>) -> Result<Option<Step>, String> {
    let mut found = None;
    for name in ["put", "get", "delete"] {
        let Some(value) = fields.take(name) else {
            continue;
        };
        if found.is_some() {
            return Err("there must be one of put, get and delete".to_owned());
        }
        let mut fields = Fields::of(value, "the step")?;
        let key = fields.text("key")?;
        found = Some(if name == "put" {
            let value = fields.text("value")?;
            Step::Put { key, value }
        } else {
            let has_end = fields.object.contains_key("range_end");
            let range_end = has_end.then(|| fields.text("range_end")).transpose()?;
            let keys = Keys { key, range_end };
            if name == "get" {
                Step::Get(keys)
            } else {
                Step::Delete(keys)
            }
        });
        fields.end()?;
    }
    Ok(found)
}
