//! Generates the message types with `protox`, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(
        ["pharos/v1/ingest.proto", "prometheus/remote.proto", "prometheus/client.proto"],
        ["proto"],
    )?;
    tonic_prost_build::configure().bytes(".pharos.v1").compile_fds(descriptors)?;
    // Its messages refer to those of version 1.0, which have a module already.
    let descriptors = protox::compile(["prometheus/remote_v2.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .extern_path(".prometheus", "crate::prometheus")
        .compile_fds(descriptors)?;
    Ok(())
}
