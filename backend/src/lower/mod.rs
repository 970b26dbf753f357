//! Lowers a region to CLIF.

use crate::error::CompileError;
use crate::layout::{HelperTable, StateLayout};
use crate::options::Options;
use cranelift_codegen::ir::{Function, TrapCode};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use metaphrase_ir::Region;

/// How many trap codes memory accesses use.
pub(crate) const TRAP_CODES: u32 = 250;

/// The number in a trap code.
pub(crate) fn trap_number(code: TrapCode) -> Option<u32> {
    let raw = u32::from(code.as_raw().get());
    (raw <= TRAP_CODES).then(|| raw - 1)
}

/// What is compiled, and for whom.
pub(crate) struct Unit<'a> {
    pub(crate) region: &'a Region,
    pub(crate) isa: &'a dyn TargetIsa,
    pub(crate) layout: &'a StateLayout,
    pub(crate) helpers: &'a HelperTable,
    pub(crate) options: &'a Options,
    pub(crate) slot_base: u32,
}

/// What the compiler must know about the function besides its code.
pub(crate) struct Lowered {
    /// The targets of the direct exits, by index.
    pub(crate) targets: Vec<i64>,
}

/// Working memory that is kept between regions.
#[derive(Default)]
pub(crate) struct Scratch {}

/// Lowers the region into `func`.
pub(crate) fn lower(
    unit: &Unit<'_>,
    func: &mut Function,
    fcx: &mut FunctionBuilderContext,
    scratch: &mut Scratch,
) -> Result<Lowered, CompileError> {
    let _ = (unit, func, fcx, scratch);
    Err(CompileError::Unsupported("everything".to_string()))
}
