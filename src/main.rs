//! The `metaphrase` command.

/// Translation allocates and frees many small vectors; this allocator makes it about a tenth
/// quicker than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(metaphrase::cli::main(std::env::args_os().collect()));
}
