//! The executable `rung`: words in, exit code out.

fn main() {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    std::process::exit(runtime::run(&words));
}
