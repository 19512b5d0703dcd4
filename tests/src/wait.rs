//! Waiting for a condition of another process: asking again until it holds.

use std::future::Future;
use std::time::{Duration, Instant};

/// No condition of the tests takes so long on the slowest machine that runs them.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until there is an answer.
///
/// # Panics
/// If there is none for a long time; `what` says what was waited for.
pub async fn until<T, F, Fut>(what: &str, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
