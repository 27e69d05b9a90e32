//! What a call can end with.

use tonic::{Code, Status};

use super::endpoint::EndpointError;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody to ask.
    #[error("no endpoints")]
    NoEndpoints,
    /// The token has characters that a header cannot carry.
    #[error("the token is not printable ASCII")]
    Token,
    /// No connection: nothing was sent.
    #[error(transparent)]
    Connect(EndpointError),
    /// The server's answer, or the end of the connection. The call may have been carried out.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// The time was over. The call may have been carried out.
    #[error("context deadline exceeded")]
    Deadline,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl ClientError {
    /// Whether the same call may be sent again.
    pub(super) fn may_repeat(&self, is_safe: bool) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Status(status) => is_safe && status.code() == Code::Unavailable,
            Self::NoEndpoints | Self::Token | Self::Deadline => false,
        }
    }

    /// The gRPC code, as Go's client would have it.
    pub fn code(&self) -> Code {
        match self {
            Self::Status(status) => status.code(),
            Self::Connect(_) | Self::NoEndpoints => Code::Unavailable,
            Self::Token => Code::InvalidArgument,
            Self::Deadline => Code::DeadlineExceeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_have_been_carried_out_is_never_repeated() {
        let status = |code| ClientError::Status(Box::new(Status::new(code, "")));
        assert!(!status(Code::Unavailable).may_repeat(false));
        assert!(status(Code::Unavailable).may_repeat(true));
        assert!(
            !status(Code::Unknown).may_repeat(true),
            "an answer is an answer"
        );
        assert!(!ClientError::Deadline.may_repeat(true));
    }
}
