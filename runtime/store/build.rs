//! The SDK's sources are part of this crate, as bytes.

fn main() {
    println!("cargo:rerun-if-changed=../../sdk/rust");
    println!("cargo:rerun-if-changed=../../wit");
}
