//! What a reviewer should not have to look for: which crate may use which, where unsafe code is, what every module
//! says about itself, and what may not be written into the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers: none of them may know another's crate.
const LAYERS: [&str; 5] = ["cli", "engine", "containerd-lite", "shim", "runtime"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate")
}

/// The files of the tree, those that git does not ignore, relative to its root.
fn files() -> Vec<PathBuf> {
    let root = root();
    let output = Command::new("git")
        .arg("-c")
        .arg(format!("safe.directory={}", root.display()))
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let listed: Vec<PathBuf> = match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .expect("names of files are UTF-8")
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        // An export without git: everything but what is built.
        _ => walk(root, Path::new("")),
    };
    let present: Vec<PathBuf> = listed.into_iter().filter(|file| root.join(file).is_file()).collect();
    assert!(present.len() > 50, "only {} files found: this test looks at the wrong place", present.len());
    present
}

fn walk(root: &Path, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(below)).expect("a folder of the tree") {
        let entry = entry.expect("an entry of the tree");
        let path = below.join(entry.file_name());
        if [".git", "target", ".build"].iter().any(|skipped| path == Path::new(skipped)) {
            continue;
        }
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(walk(root, &path)),
            false => found.push(path),
        }
    }
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let sources =
        files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources
        .map(|file| (file.clone(), std::fs::read_to_string(root().join(&file)).expect("UTF-8 source")))
        .collect()
}

/// The lines of a source file without their comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|found| found == word)
}

fn nothing(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_layer_depends_on_no_other_layer() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON of cargo metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut problems = Vec::new();
    for layer in LAYERS {
        assert!(names.contains(&layer), "the layer {layer} is not a member of the workspace");
    }
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("a name");
            let allowed = other == "proto" && name != "proto";
            if names.contains(&other) && !allowed {
                problems.push(format!("{name} depends on {other}; only proto is shared"));
            }
        }
    }
    nothing(&problems);
}

#[test]
fn unsafe_code_is_only_in_sys_modules() {
    let mut problems = Vec::new();
    for (file, text) in rust_files() {
        let in_sys = file.components().any(|part| part.as_os_str() == "sys") || file.ends_with("src/sys.rs");
        for (number, line) in code(&text) {
            if !in_sys && has_word(line, "unsafe") && !line.contains('"') {
                problems.push(format!("{}:{number}: unsafe outside a sys module", file.display()));
            }
        }
    }
    nothing(&problems);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut problems = Vec::new();
    for (file, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code(&text) {
            if !(line.contains("unsafe {") || line.contains("unsafe impl")) || line.contains('"') {
                continue;
            }
            let before = lines[number.saturating_sub(12)..number].iter();
            if !before.clone().any(|line| line.contains("SAFETY:")) {
                problems.push(format!("{}:{number}: unsafe without a SAFETY comment", file.display()));
            }
        }
    }
    nothing(&problems);
}

/// A crate's and a folder's first file hold the map of what is below; the files that lie directly in src are subjects
/// of their own.
#[test]
fn modules_begin_with_what_they_are() {
    let mut problems = Vec::new();
    for (file, text) in rust_files() {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let top = file.components().count() == 3
            && file.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
        let first = ["lib.rs", "main.rs", "mod.rs"].contains(&name.as_str());
        let says_nothing = text.lines().count() <= 3;
        if (top || first) && !says_nothing && !text.starts_with("//!") {
            problems.push(format!("{}: no `//!` head", file.display()));
        }
    }
    nothing(&problems);
}

#[test]
fn nothing_of_the_machine_it_was_written_on() {
    // Spelled in two halves, so that this file does not name them.
    let forbidden = [
        concat!("/wo", "rk/"),
        concat!("/var/", "tmp/"),
        concat!("/root/", ".cargo"),
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("deb.", "debian.org"),
    ];
    let mut problems = Vec::new();
    for file in files() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else {
            problems.push(format!("{}: not text", file.display()));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    nothing(&problems);
}

#[test]
fn nothing_that_a_program_made() {
    let mut problems = Vec::new();
    for file in files() {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let junk =
            [".orig", ".rej", ".log", ".tar", ".gz", ".o", ".so", ".rlib", ".swp", ".bak", "~", ".pb.bin"];
        if junk.iter().any(|ending| name.ends_with(ending)) || name == ".DS_Store" {
            problems.push(format!("{}: a generated file", file.display()));
        }
        let size = std::fs::metadata(root().join(&file)).expect("metadata").len();
        if size > 256 << 10 {
            problems.push(format!("{}: {size} bytes, too large to have been written", file.display()));
        }
    }
    nothing(&problems);
}
