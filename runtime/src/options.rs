//! How a virtual CPU runs: engines, tiers, passes and policies, each with a switch of its own.
//! No switch changes what the guest sees or how many guest instructions run.

use metaphrase_backend as backend;
use metaphrase_frontend::{Limits, SensitivePolicy};
use metaphrase_ir::passes::PassSet;

/// Which engine executes guest code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// The interpreter only.
    Interp,
    /// Compiled code only: everything is compiled before its first execution.
    Jit,
    /// The interpreter first, compiled code once a block is warm, regions once it is hot.
    #[default]
    Tiered,
}

impl Engine {
    /// Every engine with its name on the command line.
    pub const NAMES: [(&'static str, Engine); 3] = [
        ("interp", Engine::Interp),
        ("jit", Engine::Jit),
        ("tiered", Engine::Tiered),
    ];

    /// The engine with that name.
    pub fn from_name(name: &str) -> Option<Engine> {
        Self::NAMES
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, e)| e)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .into_iter()
            .find(|(_, e)| *e == self)
            .map_or("tiered", |(n, _)| n)
    }
}

/// What does x87 arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum X87Core {
    /// The host's own FPU, which an x86-64 host has.
    Host,
    /// Integer arithmetic of ours.
    Portable,
}

impl Default for X87Core {
    fn default() -> X87Core {
        if cfg!(target_arch = "x86_64") {
            X87Core::Host
        } else {
            X87Core::Portable
        }
    }
}

/// The options of a virtual CPU.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine.
    pub engine: Engine,
    /// Compile on a background thread (tiered engine only) rather than while the guest waits.
    pub background: bool,
    /// Find out by sampling what the time is spent on: [`crate::activity`].
    pub sample_activity: bool,
    /// The IR passes.
    pub passes: PassSet,
    /// Give the interpreter IR that no pass has touched, as the reference for lock step.
    pub reference: bool,
    /// How Cranelift is used for single blocks.
    pub tier1: backend::Options,
    /// How Cranelift is used for regions.
    pub tier2: backend::Options,
    /// Interpreted executions after which a block is compiled.
    pub tier1_threshold: u32,
    /// Guest instructions after which compilation begins at all (tiered engine only), so that a
    /// short program does not pay for starting the compiler.
    pub warm_up: u64,
    /// Compile jobs that may wait at once; what is warm beyond that has to come again.
    pub queue_limit: usize,
    /// Tiered engine: give the interpreter code that no pass has gone through. Most blocks run
    /// too seldom to earn more back, and the warm ones are compiled.
    pub quick: bool,
    /// Samples (one each [`Options::slice`] instructions) after which a region is formed.
    pub tier2_samples: u32,
    /// Form regions at all.
    pub regions: bool,
    /// With [`Engine::Jit`]: compile a region rather than a block at first execution.
    pub eager_regions: bool,
    /// Patch direct exits to jump to one another.
    pub chain: bool,
    /// Fill the jump cache, so that indirect exits find compiled code without the dispatcher.
    pub jump_cache: bool,
    /// How large a block may grow.
    pub block_limits: Limits,
    /// How large a region may grow.
    pub region_limits: Limits,
    /// Size of the code arena in bytes.
    pub arena_bytes: usize,
    /// Bound on translated blocks of all tiers; beyond it everything is dropped.
    pub max_translations: usize,
    /// How sensitive instructions are emulated.
    pub policy: SensitivePolicy,
    /// Guest instructions between two looks at the outside world.
    pub slice: u64,
    /// What does x87 arithmetic. On a host without an x87 it is the portable core in any case.
    pub x87: X87Core,
    /// Compiled code does x87 instructions with the host's, on its registers, where [`Options::x87`]
    /// is the host's.
    pub x87_inline: bool,
    /// Keep the CLIF text of compiled code for logs.
    pub keep_clif: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            engine: Engine::Tiered,
            background: true,
            sample_activity: false,
            passes: PassSet::default(),
            reference: false,
            tier1: backend::Options::default(),
            tier2: backend::Options {
                opt: backend::OptLevel::Speed,
                ..backend::Options::default()
            },
            tier1_threshold: 100,
            warm_up: 100_000,
            queue_limit: 256,
            quick: true,
            tier2_samples: 20,
            regions: true,
            eager_regions: false,
            chain: true,
            jump_cache: true,
            block_limits: Limits::BLOCK,
            region_limits: Limits::REGION,
            arena_bytes: 64 << 20,
            max_translations: 1 << 19,
            policy: SensitivePolicy::default(),
            slice: 100_000,
            x87: X87Core::default(),
            x87_inline: true,
            keep_clif: false,
        }
    }
}

impl Options {
    /// Whether a background thread compiles.
    pub fn compiles_in_background(&self) -> bool {
        self.background && self.engine == Engine::Tiered
    }
}
