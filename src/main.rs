//! The `metaphrase` command.

fn main() {
    std::process::exit(metaphrase::cli::main(std::env::args_os().collect()));
}
