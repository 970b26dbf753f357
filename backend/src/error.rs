//! What can go wrong in the backend.

/// The backend cannot be set up on this host.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The host's architecture or operating system lacks something.
    #[error("this host cannot run compiled code: {0}")]
    Unsupported(String),
    /// An operating-system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Cranelift failed on the backend's own code.
    #[error("code generation for the entry code failed: {0}")]
    Codegen(String),
    /// A size that makes no sense.
    #[error("the code arena must be between {min} and {max} bytes, not {wanted}")]
    ArenaSize {
        /// What was asked for.
        wanted: usize,
        /// The smallest size.
        min: usize,
        /// The largest size, which direct jumps of the host can span.
        max: usize,
    },
}

/// One region could not be compiled; the interpreter has to run it.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The region uses something that the backend does not know.
    #[error("not supported by the backend: {0}")]
    Unsupported(String),
    /// Cranelift reported an error.
    #[error("code generation failed: {0}")]
    Codegen(String),
    /// Cranelift or the lowering panicked.
    #[error("code generation panicked: {0}")]
    Panic(String),
}

/// There is no room in the arena: free something and try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the code arena has no {wanted} bytes in one piece")]
pub struct ArenaFull {
    /// Bytes asked for.
    pub wanted: usize,
}
