//! The kinds of faults, by the names that `--faults` takes.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Sites with the latencies of a wide-area network.
    Wan,
    /// A site on a satellite.
    Satellite,
    /// Lost messages.
    Loss,
    /// Doubled messages.
    Duplicate,
    /// Messages that overtake each other.
    Reorder,
    /// Nothing passes one way between two nodes.
    OneWay,
    /// Partitions of any shape.
    Partition,
    /// A node with slow links.
    SlowPeer,
    /// Processes that end at any moment, with what they were writing or without it.
    Crash,
    /// A store that is found to be damaged.
    BitFlip,
    /// A store from a backup.
    Backup,
    /// A machine that is gone with its disk.
    Burn,
    /// A full disk.
    DiskFull,
    /// Slow commits.
    SlowFsync,
    /// A laptop that sleeps.
    Pause,
    /// Wall clocks that differ by hours.
    Skew,
    /// Wall clocks that jump.
    ClockJump,
    /// A member that is revoked.
    Revoke,
    /// A node that joins late.
    Join,
    /// A node that sells something else.
    Offer,
    /// Jobs that are cancelled.
    Cancel,
    /// A member that signs two versions of one bundle.
    Equivocate,
    /// A member that writes in others' names.
    Forge,
    /// A member that claims and never runs.
    IdleClaim,
    /// A member that sends again what it received.
    Replay,
    /// A member that sends too much.
    Flood,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 26] = [
        Self::Wan,
        Self::Satellite,
        Self::Loss,
        Self::Duplicate,
        Self::Reorder,
        Self::OneWay,
        Self::Partition,
        Self::SlowPeer,
        Self::Crash,
        Self::BitFlip,
        Self::Backup,
        Self::Burn,
        Self::DiskFull,
        Self::SlowFsync,
        Self::Pause,
        Self::Skew,
        Self::ClockJump,
        Self::Revoke,
        Self::Join,
        Self::Offer,
        Self::Cancel,
        Self::Equivocate,
        Self::Forge,
        Self::IdleClaim,
        Self::Replay,
        Self::Flood,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Satellite => "satellite",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::OneWay => "one-way",
            Self::Partition => "partition",
            Self::SlowPeer => "slow-peer",
            Self::Crash => "crash",
            Self::BitFlip => "bit-flip",
            Self::Backup => "backup",
            Self::Burn => "burn",
            Self::DiskFull => "disk-full",
            Self::SlowFsync => "slow-fsync",
            Self::Pause => "pause",
            Self::Skew => "skew",
            Self::ClockJump => "clock-jump",
            Self::Revoke => "revoke",
            Self::Join => "join",
            Self::Offer => "offer",
            Self::Cancel => "cancel",
            Self::Equivocate => "equivocate",
            Self::Forge => "forge",
            Self::IdleClaim => "idle-claim",
            Self::Replay => "replay",
            Self::Flood => "flood",
        }
    }

    /// Reads a list of names, or `all`, or `none`.
    ///
    /// # Errors
    /// The name that is none, with those that there are.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        match text {
            "all" => Ok(Self::ALL.to_vec()),
            "none" | "" => Ok(Vec::new()),
            list => list.split(',').map(Self::parse).collect(),
        }
    }

    fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name.trim());
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("no fault is called {name:?}: take all, none, or some of {}", names.join(","))
        })
    }
}
