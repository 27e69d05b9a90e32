//! The text of a scenario, and where in it something is wrong.

use std::fmt;
use std::ops::Range;

/// The text of a file, under the name that errors give it.
#[derive(Debug)]
pub(super) struct Source<'s> {
    pub(super) file: &'s str,
    pub(super) text: &'s str,
}

/// What is wrong with a scenario file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What was found, and what was expected.
    pub message: String,
    /// The line's text, and how many characters of it are meant.
    excerpt: Option<(String, usize)>,
}

impl std::error::Error for ScenarioError {}

impl ScenarioError {
    /// An error that concerns a file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: message.into(),
            excerpt: None,
        }
    }
}

impl Source<'_> {
    /// An error at a place of the text.
    pub(super) fn error(&self, span: Range<usize>, message: impl Into<String>) -> ScenarioError {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |end| end + 1);
        let rest = &self.text[line_start..];
        let line_text = rest.lines().next().unwrap_or_default();
        let end = span
            .end
            .clamp(start, line_start + line_text.len().max(start - line_start));
        ScenarioError {
            file: self.file.to_owned(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            message: message.into(),
            excerpt: Some((
                line_text.to_owned(),
                self.text[start..end].chars().count().max(1),
            )),
        }
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            excerpt,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        let Some((text, width)) = excerpt else {
            return Ok(());
        };
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        let before = " ".repeat(column - 1);
        write!(
            f,
            "\n {number} | {text}\n {gutter} | {before}{}",
            "^".repeat(*width)
        )
    }
}
