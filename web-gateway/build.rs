//! The dashboard is built before the binary (`make ui`): what is new there makes this crate old.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
}
