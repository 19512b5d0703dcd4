//! How programs end and reload: SIGTERM and SIGINT cancel a token that every task watches, SIGHUP asks
//! for a reload.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that every part of a program watches; cancelling it ends the program cleanly.
pub type Shutdown = CancellationToken;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        for round in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if round > 0 {
                tracing::warn!(signal = name, "Second signal received, exiting at once");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "Signal received, shutting down");
            token.cancel();
        }
    });
    Ok(shutdown)
}

/// Yields once for every SIGHUP.
///
/// # Errors
/// If the signal handler cannot be installed.
pub fn reload_signals() -> std::io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::hangup())
}
