//! What should be logged once there is a log.

/// What went well, and is worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub level: NoticeLevel,
    /// The message.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// Probably not wanted.
    Warn,
}

impl Notice {
    pub(super) fn info(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self {
            level: NoticeLevel::Info,
            message: message.to_owned(),
            fields,
        }
    }

    pub(super) fn warn(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self {
            level: NoticeLevel::Warn,
            message: message.to_owned(),
            fields,
        }
    }
}
