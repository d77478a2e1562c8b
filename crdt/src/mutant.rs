//! Deliberate mistakes, one for each invariant that the simulator checks: a check that none of them turns red checks nothing.
//!
//! They exist only with the feature `mutants`, which no shipped binary is built with; without it each question below is `false`
//! at compile time. Which mistake is made is a setting of the whole process.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// Says that whoever is connected holds what is acknowledged.
    AcksWithoutReceipt = 1,
    /// Judges an author's bundles by what is known of it when they arrive.
    JudgesAtArrival,
    /// Lets anybody accept a result.
    AnybodyAccepts,
    /// Lets a decree pass with one vote less than a majority.
    QuorumShort,
    /// Takes in bundles whatever their signature.
    TakesUnsigned,
    /// Drops the whole feed of an author that forked it.
    RewindsWholly,
    /// Counts what a member wrote after its revocation.
    CountsRevoked,
    /// Opens no attempt after a lost one.
    IgnoresLost,
    /// Keeps one slot back.
    KeepsSlotBack,
    /// Declares a lease lost after the silence of two presences.
    ShortLease,
    /// Takes the oldest task, whoever waits.
    OldestFirst,
    /// Remembers every call.
    TakesEveryCall,
    /// Forgets to free the slot of a run that was killed.
    LeaksSlot,
    /// Starts jobs whatever they serve.
    StartsUnregistered,
    /// Lets anybody take an idea that is offered to somebody.
    AnybodyTakes,
    /// Leaves out what was taken back.
    RetractionRemoves,
}

impl Mutant {
    /// All mistakes.
    pub const ALL: [Self; 16] = [
        Self::AcksWithoutReceipt,
        Self::JudgesAtArrival,
        Self::AnybodyAccepts,
        Self::QuorumShort,
        Self::TakesUnsigned,
        Self::RewindsWholly,
        Self::CountsRevoked,
        Self::IgnoresLost,
        Self::KeepsSlotBack,
        Self::ShortLease,
        Self::OldestFirst,
        Self::TakesEveryCall,
        Self::LeaksSlot,
        Self::StartsUnregistered,
        Self::AnybodyTakes,
        Self::RetractionRemoves,
    ];
}

#[cfg(feature = "mutants")]
static MADE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this mistake is made.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_made(mutant: Mutant) -> bool {
    MADE.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether this mistake is made: never in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_made(_mutant: Mutant) -> bool {
    false
}

/// Makes one mistake, or none, from now on and in the whole process.
#[cfg(feature = "mutants")]
pub fn make(mutant: Option<Mutant>) {
    MADE.store(mutant.map_or(0, |mutant| mutant as u8), std::sync::atomic::Ordering::Relaxed);
}
