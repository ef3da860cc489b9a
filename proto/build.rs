//! Generates the message types and gRPC services. protox compiles the .proto files in process, so no
//! protoc is needed.

fn main() {
    println!("cargo:rerun-if-changed=task");
    println!("cargo:rerun-if-changed=containerd");
    #[cfg(feature = "task")]
    generate();
}

#[cfg(feature = "task")]
fn generate() {
    let mut files: Vec<String> = list("task");
    if cfg!(feature = "containerd") {
        files.extend(list("containerd"));
    }
    let mut set = protox::compile(&files, ["."]).expect("the .proto files of this crate compile");
    // The services of task/ are ttrpc, not gRPC: they are called by name through proto::ttrpc.
    for file in set.file.iter_mut().filter(|file| file.name().starts_with("task/")) {
        file.service.clear();
    }
    let mut config = tonic_prost_build::Config::new();
    // Full message names, for type urls.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(cfg!(feature = "containerd"))
        .build_client(cfg!(feature = "containerd"))
        .compile_fds_with_config(set, config)
        .expect("code generation");
}

#[cfg(feature = "task")]
fn list(dir: &str) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .expect("the crate's own folder is readable")
        .map(|entry| entry.expect("a readable entry").path().display().to_string())
        .filter(|path| path.ends_with(".proto"))
        .collect();
    files.sort();
    files
}
