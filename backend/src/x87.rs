//! x87 instructions of an x86-64 host for compiled code: stubs of one instruction each, which
//! Cranelift does not know.
//!
//! They work on the host's own x87 registers, which hold the guest's while the state says so (see
//! `lower/x87.rs`). An operand in memory is always the scratch space whose address is in RDI. Like
//! those of SSE they change no register of the CPU's but the flags.

use std::arch::global_asm;

/// Bytes between stubs.
const STRIDE: usize = 16;

global_asm!(
    ".pushsection .text.metaphrase_x87,\"ax\",@progbits",
    ".balign 64",
    ".hidden metaphrase_x87_stubs",
    ".globl metaphrase_x87_stubs",
    "metaphrase_x87_stubs:",
    // Register forms, by escape byte and ModRM byte.
    ".set metaphrase_x87_escape, 0xd8",
    ".rept 8",
    ".set metaphrase_x87_modrm, 0xc0",
    ".rept 64",
    ".balign 16",
    ".byte metaphrase_x87_escape, metaphrase_x87_modrm, 0xc3",
    ".set metaphrase_x87_modrm, metaphrase_x87_modrm + 1",
    ".endr",
    ".set metaphrase_x87_escape, metaphrase_x87_escape + 1",
    ".endr",
    // Memory forms, by escape byte and reg field.
    ".set metaphrase_x87_escape, 0xd8",
    ".rept 8",
    ".set metaphrase_x87_modrm, 7",
    ".rept 8",
    ".balign 16",
    ".byte metaphrase_x87_escape, metaphrase_x87_modrm, 0xc3",
    ".set metaphrase_x87_modrm, metaphrase_x87_modrm + 8",
    ".endr",
    ".set metaphrase_x87_escape, metaphrase_x87_escape + 1",
    ".endr",
    // Likewise, the status word of before stored to the scratch space first, and where it has SF
    // the environment.
    ".set metaphrase_x87_escape, 0xd8",
    ".rept 8",
    ".set metaphrase_x87_modrm, 7",
    ".rept 8",
    ".balign 16",
    "fnstsw word ptr [rdi + 16]",
    "test byte ptr [rdi + 16], 0x40",
    ".byte 0x74, 3", // to behind FNSTENV
    "fnstenv [rdi + 32]",
    ".byte metaphrase_x87_escape, metaphrase_x87_modrm, 0xc3",
    ".set metaphrase_x87_modrm, metaphrase_x87_modrm + 8",
    ".endr",
    ".set metaphrase_x87_escape, metaphrase_x87_escape + 1",
    ".endr",
    // FUCOMI, FCOMI, FUCOMIP, FCOMIP: RFLAGS to the scratch space.
    ".set metaphrase_x87_escape, 0xdb",
    ".rept 2",
    ".set metaphrase_x87_modrm, 0xe8",
    ".rept 16",
    ".balign 16",
    ".byte metaphrase_x87_escape, metaphrase_x87_modrm",
    "pushfq",
    "pop qword ptr [rdi]",
    "ret",
    ".set metaphrase_x87_modrm, metaphrase_x87_modrm + 1",
    ".endr",
    ".set metaphrase_x87_escape, metaphrase_x87_escape + 4",
    ".endr",
    // ST(0) := ST(i) if RSI is not 0: FCMOVNE.
    ".set metaphrase_x87_modrm, 0xc8",
    ".rept 8",
    ".balign 16",
    "test rsi, rsi",
    ".byte 0xdb, metaphrase_x87_modrm, 0xc3",
    ".set metaphrase_x87_modrm, metaphrase_x87_modrm + 1",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    static metaphrase_x87_stubs: u8;
}

// Where each kind begins.
const REGISTERS: usize = 0;
const MEMORY: usize = REGISTERS + 8 * 64;
const STORES: usize = MEMORY + 8 * 8;
const FLAGS: usize = STORES + 8 * 8;
const SELECTS: usize = FLAGS + 2 * 16;

fn stub(n: usize) -> usize {
    (&raw const metaphrase_x87_stubs).addr() + n * STRIDE
}

/// An instruction without a memory operand; `escape` is 0 for D8.
pub fn register(escape: u8, modrm: u8) -> usize {
    stub(REGISTERS + usize::from(escape & 7) * 64 + usize::from(modrm & 63))
}

/// One that reads the scratch space, or writes it and no status.
pub fn memory(escape: u8, reg: u8) -> usize {
    stub(MEMORY + usize::from(escape & 7) * 8 + usize::from(reg & 7))
}

/// One that writes the scratch space; the status word of before is 16 bytes behind it, the
/// environment 32, if SF was set.
pub fn store(escape: u8, reg: u8) -> usize {
    stub(STORES + usize::from(escape & 7) * 8 + usize::from(reg & 7))
}

/// FUCOMI or FCOMI (DB), FUCOMIP or FCOMIP (DF): RFLAGS in the scratch space.
pub fn flags(escape: u8, modrm: u8) -> usize {
    let pops = usize::from(escape & 7 == 7);
    stub(FLAGS + pops * 16 + usize::from(modrm.wrapping_sub(0xe8) & 15))
}

/// ST(0) := ST(`i`) if RSI is not 0.
pub fn select(i: u8) -> usize {
    stub(SELECTS + usize::from(i & 7))
}
