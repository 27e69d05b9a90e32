//! Waiting for what must come: every wait here has a condition and an end.

use std::time::{Duration, Instant};

/// How long a cluster may take for anything that it is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long one attempt may take: a request to a member that hangs is made anew.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// Attempts something until it works; the error says what was waited for and what the last attempt said.
pub(crate) async fn until<T>(
    what: &str,
    attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    until_by_attempts(what, ATTEMPT, attempt).await
}

/// The same with another limit on each attempt.
pub(crate) async fn until_by_attempts<T>(
    what: &str,
    attempt_max: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        let last = match tokio::time::timeout(attempt_max, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {attempt_max:?}"),
        };
        if began.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {PATIENCE:?}: {last}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
