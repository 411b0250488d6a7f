//! Compiles `proto/` without `protoc`, so that building needs nothing beyond Rust.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 2] = [
    "feast/serving/ServingService.proto",
    "feast/serving/GrpcServer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("feast.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        // In the order of their names, so that an answer does not depend on a hash.
        .btree_map(".")
        .include_file("all.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
