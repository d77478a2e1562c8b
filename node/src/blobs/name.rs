//! The name of content that is read once: plain BLAKE3 up to one part, above that the hash of the list of its parts.

use crdt::ids::BlobHash;

use super::BlobRef;
use super::limits::PART_BYTES;

/// Names content as the store would, without storing it. Memory: 32 bytes for each 16 MiB.
#[derive(Debug, Clone, Default)]
pub struct BlobNamer {
    part: blake3::Hasher,
    part_bytes: u64,
    parts: Vec<[u8; 32]>,
}

impl BlobNamer {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A part is closed only when more comes: content of exactly one part is no list of parts.
            if self.part_bytes == PART_BYTES {
                self.close_part();
            }
            let room = usize::try_from(PART_BYTES - self.part_bytes).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.part.update(now);
            self.part_bytes += now.len() as u64;
            bytes = later;
        }
    }

    /// The name and size of what was taken in.
    #[must_use]
    pub fn finish(mut self) -> BlobRef {
        if self.parts.is_empty() {
            return BlobRef { hash: BlobHash(*self.part.finalize().as_bytes()), size: self.part_bytes };
        }
        let size = self.parts.len() as u64 * PART_BYTES + self.part_bytes;
        self.close_part();
        BlobRef { hash: BlobHash(*blake3::hash(self.parts.as_flattened()).as_bytes()), size }
    }

    fn close_part(&mut self) {
        self.parts.push(*self.part.finalize().as_bytes());
        self.part.reset();
        self.part_bytes = 0;
    }
}

impl std::io::Write for BlobNamer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{Blobs, BlobsConfig, Pin, PinReason};

    #[tokio::test(flavor = "multi_thread")]
    async fn content_is_named_as_the_store_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = BlobsConfig { quota_bytes: 1 << 30 };
        let blobs = Blobs::open(&dir.path().join("blobs"), config).await.unwrap().blobs;
        let part = usize::try_from(PART_BYTES).unwrap();
        for size in [0, 1, part - 1, part, part + 1, 2 * part, 2 * part + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut namer = BlobNamer::new();
            bytes.chunks(1_000_003).for_each(|chunk| namer.update(chunk));
            let stored = blobs.add_bytes(bytes.into(), &Pin::new(PinReason::Manual)).await.unwrap();
            assert_eq!(namer.finish(), stored, "{size}");
        }
        blobs.shutdown().await;
    }
}
