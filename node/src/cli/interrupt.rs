//! Ctrl-C and its kin, as events to await: the Unix signals, and their twin on Windows.

/// Which interruption came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Ctrl-C.
    CtrlC,
    /// SIGTERM, or the console is closing.
    Terminate,
}

impl Interrupt {
    /// The exit code of a process that it ended.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::CtrlC => 130,
            Self::Terminate => 143,
        }
    }
}

#[cfg(unix)]
mod platform {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(in super::super) struct Interrupts {
        ctrl_c: Signal,
        terminate: Signal,
    }

    impl Interrupts {
        pub(in super::super) fn listen() -> std::io::Result<Self> {
            Ok(Self { ctrl_c: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }

        /// Waits for the next one. Cancel safe.
        pub(in super::super) async fn next(&mut self) -> super::Interrupt {
            tokio::select! {
                _ = self.ctrl_c.recv() => super::Interrupt::CtrlC,
                _ = self.terminate.recv() => super::Interrupt::Terminate,
            }
        }
    }
}

#[cfg(windows)]
mod platform {
    use tokio::signal::windows::{CtrlC, CtrlClose, ctrl_c, ctrl_close};

    pub(in super::super) struct Interrupts {
        ctrl_c: CtrlC,
        close: CtrlClose,
    }

    impl Interrupts {
        pub(in super::super) fn listen() -> std::io::Result<Self> {
            Ok(Self { ctrl_c: ctrl_c()?, close: ctrl_close()? })
        }

        /// Waits for the next one. Cancel safe.
        pub(in super::super) async fn next(&mut self) -> super::Interrupt {
            tokio::select! {
                _ = self.ctrl_c.recv() => super::Interrupt::CtrlC,
                _ = self.close.recv() => super::Interrupt::Terminate,
            }
        }
    }
}

pub(super) use platform::Interrupts;
