//! Ctrl-C and SIGTERM: a wish to stop, after which what was made is still taken back.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a program says that a signal ended it: 128 and SIGINT.
const INTERRUPTED: i32 = 130;

/// Whether the person in front has asked to stop.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// One that is raised by the first Ctrl-C or SIGTERM. The second one ends the process where it stands.
    ///
    /// # Errors
    /// Where the handlers cannot be set.
    pub fn on_signals() -> io::Result<Self> {
        let (raise, raised) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            for round in 0.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if round > 0 {
                    std::process::exit(INTERRUPTED);
                }
                raise.send_replace(true);
            }
        });
        Ok(Self(raised))
    }

    /// One and what raises it.
    pub fn by_hand() -> (watch::Sender<bool>, Self) {
        let (raise, raised) = watch::channel(false);
        (raise, Self(raised))
    }

    /// Whether it has been raised.
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is raised; never where nothing is left that could raise it.
    pub async fn raised(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
