//! What may happen next in the model.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Lose,
    Double,
    Delay,
    Crash,
    Cut,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The oldest message on a way arrives.
    Arrive(usize, usize),
    /// It is lost.
    Lose(usize, usize),
    /// It arrives, and will arrive once more.
    Double(usize, usize),
    /// It will arrive later than others.
    Delay(usize, usize),
    /// What was delayed, or comes a second time, arrives.
    Late,
    /// A node's running task ends.
    End(usize),
    /// A node is gone, with what was on its way to it, and with what it had sent if so it says.
    Crash(usize, bool),
    /// It starts again.
    Restart,
    /// A node is cut off.
    Cut(usize),
    /// It is back.
    Heal,
    /// Time goes on.
    Tick,
}
