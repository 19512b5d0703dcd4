//! Generates the message types with `protox`, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["pharos/v1/ingest.proto", "prometheus/remote.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".pharos.v1").compile_fds(descriptors)?;
    Ok(())
}
