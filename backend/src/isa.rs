//! The Cranelift target: the host, with the settings that the options ask for.

use crate::error::BackendError;
use crate::options::{OptLevel, Options, Regalloc};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};

/// The host's target.
pub(crate) fn host(options: &Options) -> Result<OwnedTargetIsa, BackendError> {
    let mut flags = settings::builder();
    let bool = |b: bool| if b { "true" } else { "false" };
    let opt = match options.opt {
        OptLevel::None => "none",
        OptLevel::Speed => "speed",
    };
    let regalloc = match options.regalloc {
        Regalloc::Backtracking => "backtracking",
        Regalloc::SinglePass => "single_pass",
    };
    for (name, value) in [
        ("opt_level", opt),
        ("regalloc_algorithm", regalloc),
        ("enable_verifier", bool(options.verify_clif)),
        ("unwind_info", "false"),
        // Tail calls need it.
        ("preserve_frame_pointers", "true"),
        ("enable_probestack", "false"),
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
        ("is_pic", "false"),
        // Where blocks start: `resume` wants to know.
        ("machine_code_cfg_info", "true"),
    ] {
        flags
            .set(name, value)
            .map_err(|e| BackendError::Codegen(format!("{name}={value}: {e}")))?;
    }
    let isa = cranelift_native::builder()
        .map_err(|e| BackendError::Unsupported(e.to_string()))?
        .finish(settings::Flags::new(flags))
        .map_err(|e| BackendError::Codegen(e.to_string()))?;
    if isa.pointer_bits() != 64 || isa.endianness() != cranelift_codegen::ir::Endianness::Little {
        return Err(BackendError::Unsupported(format!(
            "{} is not a 64-bit little-endian host",
            isa.triple()
        )));
    }
    Ok(isa)
}
