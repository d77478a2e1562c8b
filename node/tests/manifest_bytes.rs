//! Mutated tree manifests: none panics, and what is taken has one form only. The fuzz target in `fuzz/` goes on from here.

#[path = "../../crdt/tests/mutate/mutate.rs"]
mod mutate;

use mutate::{Draw, INPUTS};
use node::tree::{self, Manifest, ScanOptions};

#[test]
fn mutated_manifests_are_refused_or_have_one_form() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path();
    std::fs::create_dir_all(root.join("src/مجلد/empty")).expect("directories");
    for (path, text) in [("a", "1"), ("src/lib.rs", "fn main() {}"), ("src/مجلد/b.txt", "two")] {
        std::fs::write(root.join(path), text).expect("a file");
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("src/lib.rs", root.join("link")).expect("a link");
    let scan = tree::scan(root, ScanOptions::default()).expect("a tree");
    let seeds = [scan.manifest.encode(), Manifest::new(Vec::new()).expect("an empty tree").encode()];
    let (mut draw, mut taken) = (Draw(6), 0);
    for _ in 0..INPUTS {
        let bytes = draw.mutated(&seeds);
        if let Ok(manifest) = Manifest::decode(&bytes) {
            assert_eq!(manifest.encode(), bytes);
            taken += 1;
        }
    }
    assert!(taken > 10, "some mutations are manifests: {taken}");
}
