//! Hands the path of the BPF object to the crate, which embeds it; says how to build it where it is absent.

use std::env;
use std::path::{Path, PathBuf};

const VARIABLE: &str = "TRUNKLINE_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let object = match env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => package.with_file_name("target").join("ebpf/trunkline-ebpf.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) => println!("cargo::rustc-env={VARIABLE}={}", path.display()),
        Err(error) => println!(
            "cargo::error=the BPF object {} is missing ({error}): run `cargo xtask build-ebpf` first",
            object.display()
        ),
    }
}
