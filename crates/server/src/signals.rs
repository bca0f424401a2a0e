//! What the system asks of the process.

use std::io;

#[cfg(unix)]
use tokio::signal::unix;
#[cfg(windows)]
use tokio::signal::windows;

/// One request of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM or SIGINT; on Windows Ctrl+C, Ctrl+Break, a closed console, or the machine's end.
    End,
    /// SIGHUP.
    #[cfg_attr(windows, expect(dead_code, reason = "a console has no such request"))]
    Reload,
    /// SIGUSR1.
    #[cfg_attr(windows, expect(dead_code, reason = "a console has no such request"))]
    Dump,
}

/// All that are listened to. SIGPIPE is ignored by the runtime of the language.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user: unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Begins to listen; has to be called within a runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user.recv() => Signal::Dump,
        }
    }
}

/// All that a console hears.
#[cfg(windows)]
pub(crate) struct Signals {
    interrupt: windows::CtrlC,
    pause: windows::CtrlBreak,
    close: windows::CtrlClose,
    shutdown: windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Begins to listen; has to be called within a runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: windows::ctrl_c()?,
            pause: windows::ctrl_break()?,
            close: windows::ctrl_close()?,
            shutdown: windows::ctrl_shutdown()?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.pause.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
        Signal::End
    }
}
