//! System instructions as user mode sees them: flags in AH, single flags, software interrupts and
//! system calls, identification and time, segment registers, fences and cache hints, and what is
//! privileged.
//!
//! The sensitive ones ask the policy first; see `docs/sensitive-instructions.md`.

use super::atomic::set_zf;
use super::operand::Place;
use super::stack_ops::rflags_image;
use super::{BP, BR, DB, GP, Lift, OF};
use crate::policy::Sensitive;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use metaphrase_ir::{
    AccessKind, Cond, FlagKind, Helper, IntCc, Reg, SyscallKind, Type, Value, flags,
};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Mov => return mov(cx),
        Mnemonic::Lahf => lahf(cx),
        Mnemonic::Sahf => sahf(cx),
        Mnemonic::Salc => salc(cx),
        Mnemonic::Clc => change_carry(cx, |_, _| None),
        Mnemonic::Stc => change_carry(cx, |cx, _| Some(cx.iconst(Type::I64, flags::CF))),
        Mnemonic::Cmc => change_carry(cx, complement),
        Mnemonic::Cld => set_direction(cx, 1),
        Mnemonic::Std => set_direction(cx, -1),
        Mnemonic::Bound => bound(cx),
        Mnemonic::Into => into(cx),
        Mnemonic::Int => int(cx),
        Mnemonic::Int3 => software_trap(cx, BP),
        Mnemonic::Int1 => software_trap(cx, DB),
        Mnemonic::Syscall => syscall(cx),
        Mnemonic::Sysenter => sysenter(cx),
        Mnemonic::Cpuid => cpuid(cx),
        Mnemonic::Rdtsc => rdtsc(cx),
        Mnemonic::Rdtscp => rdtscp(cx),
        Mnemonic::Rdpid => rdpid(cx),
        Mnemonic::Mfence => cx.ir.fence(),
        // The memory model of the IR is the host's, at least as strong as x86's where it matters.
        Mnemonic::Lfence | Mnemonic::Sfence => {}
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => flush(cx),
        Mnemonic::Movnti | Mnemonic::Movdiri => {
            let v = cx.read(1);
            cx.write(0, v);
        }
        Mnemonic::Rdfsbase => read_base(cx, Reg::FsBase),
        Mnemonic::Rdgsbase => read_base(cx, Reg::GsBase),
        Mnemonic::Wrfsbase => write_base(cx, Reg::FsBase),
        Mnemonic::Wrgsbase => write_base(cx, Reg::GsBase),
        Mnemonic::Lds => load_far(cx, Register::DS),
        Mnemonic::Les => load_far(cx, Register::ES),
        Mnemonic::Lfs => load_far(cx, Register::FS),
        Mnemonic::Lgs => load_far(cx, Register::GS),
        Mnemonic::Lss => load_far(cx, Register::SS),
        Mnemonic::Sgdt => store_table(cx, Sensitive::Sgdt, 0xffff_ffff_fffe_0000),
        Mnemonic::Sidt => store_table(cx, Sensitive::Sidt, 0xffff_ffff_ffff_0000),
        Mnemonic::Sldt => store_word(cx, Sensitive::Sldt, 0),
        Mnemonic::Str => store_word(cx, Sensitive::Str, TASK_REGISTER),
        Mnemonic::Smsw => store_word(cx, Sensitive::Smsw, CR0),
        Mnemonic::Lar => load_info(cx, Sensitive::Lar, 0),
        Mnemonic::Lsl => load_info(cx, Sensitive::Lsl, 1),
        Mnemonic::Verr => verify(cx, Sensitive::Verr, 2),
        Mnemonic::Verw => verify(cx, Sensitive::Verw, 3),
        Mnemonic::Arpl => arpl(cx),
        Mnemonic::In | Mnemonic::Out => privileged(cx, Some(Sensitive::Io)),
        Mnemonic::Cli => privileged(cx, Some(Sensitive::Cli)),
        Mnemonic::Sti => privileged(cx, Some(Sensitive::Sti)),
        Mnemonic::Hlt => privileged(cx, Some(Sensitive::Hlt)),
        Mnemonic::Clts
        | Mnemonic::Invd
        | Mnemonic::Invlpg
        | Mnemonic::Invpcid
        | Mnemonic::Lgdt
        | Mnemonic::Lidt
        | Mnemonic::Lldt
        | Mnemonic::Lmsw
        | Mnemonic::Ltr
        | Mnemonic::Rdmsr
        | Mnemonic::Rdpmc
        | Mnemonic::Swapgs
        | Mnemonic::Sysexit
        | Mnemonic::Sysexitq
        | Mnemonic::Sysret
        | Mnemonic::Sysretq
        | Mnemonic::Wbinvd
        | Mnemonic::Wbnoinvd
        | Mnemonic::Wrmsr
        | Mnemonic::Xsetbv => privileged(cx, None),
        _ => return false,
    }
    true
}

/// What user mode sees of CR0, as Linux answers for it: PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// The selector that STR gives in user mode: Linux's task state segment.
const TASK_REGISTER: u64 = 0x40;

/// #GP at CPL 3.
fn privileged(cx: &mut Lift<'_>, kind: Option<Sensitive>) {
    if kind.is_none_or(|kind| cx.policy(kind).is_some()) {
        cx.ir.exit_raise(GP);
    }
}

/// LAHF: AH := SF, ZF, AF, PF, CF in their places, and bit 1.
fn lahf(cx: &mut Lift<'_>) {
    let image = cx.ir.getflags();
    let low = cx.ir.trunc(Type::I8, image);
    let fixed = cx.iconst(Type::I8, 2);
    let v = cx.ir.or(low, fixed);
    cx.write_gpr(Register::AH, v);
}

/// SALC, undocumented but on every CPU: all bits of AL take CF.
fn salc(cx: &mut Lift<'_>) {
    let carry = cx.ir.getcond(Cond::B);
    let zero = cx.iconst(Type::I8, 0);
    let v = cx.ir.sub(zero, carry);
    cx.write_gpr(Register::AL, v);
}

/// SAHF: SF, ZF, AF, PF, CF from AH; OF stays.
fn sahf(cx: &mut Lift<'_>) {
    let old = cx.ir.getflags();
    let mask = cx.iconst(Type::I64, flags::OF);
    let kept = cx.ir.and(old, mask);
    let ah = cx.read_gpr(Register::AH);
    let ah = cx.ir.zext(Type::I64, ah);
    let image = cx.ir.or(kept, ah);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// CLC, STC, CMC: CF becomes what `carry` says (none: 0), given the old flags.
fn change_carry(cx: &mut Lift<'_>, carry: fn(&mut Lift<'_>, Value) -> Option<Value>) {
    let old = cx.ir.getflags();
    let mask = cx.iconst(Type::I64, !flags::CF);
    let mut image = cx.ir.and(old, mask);
    if let Some(carry) = carry(cx, old) {
        image = cx.ir.or(image, carry);
    }
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// The complement of CF, in place.
fn complement(cx: &mut Lift<'_>, old: Value) -> Option<Value> {
    let cf = cx.iconst(Type::I64, flags::CF);
    let carry = cx.ir.and(old, cf);
    Some(cx.ir.xor(carry, cf))
}

/// CLD, STD.
fn set_direction(cx: &mut Lift<'_>, step: i64) {
    let v = cx.iconst(Type::I64, step as u64);
    cx.ir.setreg(Reg::Df, v);
}

/// A linear address `delta` bytes further on; outside 64-bit code it wraps at 2^32.
pub fn further(cx: &mut Lift<'_>, addr: Value, delta: u32) -> Value {
    let d = cx.iconst(Type::I64, u64::from(delta));
    let sum = cx.ir.add(addr, d);
    if cx.mode.is_64() {
        sum
    } else {
        cx.wrap_address(sum, Type::I32)
    }
}

/// BOUND: #BR unless the signed index lies between the two bounds in memory.
fn bound(cx: &mut Lift<'_>) {
    let index = cx.read(0);
    let ty = cx.ir.ty(index);
    let ea = cx.effective_address();
    let segment = cx.insn.memory_segment();
    let addr = cx.access_aligned(segment, ea, 2 * ty.bytes(), false, ty.bytes());
    let kind = cx.operand_kind();
    let lower = cx.ir.load(ty, addr, kind);
    let addr = further(cx, addr, ty.bytes());
    let upper = cx.ir.load(ty, addr, kind);
    let below = cx.ir.icmp(IntCc::Slt, index, lower);
    let above = cx.ir.icmp(IntCc::Sgt, index, upper);
    let outside = cx.ir.or(below, above);
    cx.ir.trapif(outside, BR);
}

/// INTO: the #OF trap if OF is set.
fn into(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Int).is_none() {
        return;
    }
    let overflow = cx.ir.getcond(Cond::O);
    let (trap, rest) = (cx.ir.new_block(), cx.ir.new_block());
    cx.ir.brif(overflow, (trap, &[]), (rest, &[]));
    cx.ir.switch_to(trap);
    cx.ir.exit_trap(OF);
    cx.ir.switch_to(rest);
}

/// INT n: gates that user mode may use are 3, 4 and 0x80; the others are #GP.
fn int(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Int).is_none() {
        return;
    }
    match cx.insn.immediate(0) & 0xff {
        3 => cx.ir.exit_trap(BP),
        4 => cx.ir.exit_trap(OF),
        0x80 => {
            let next = cx.next_offset();
            cx.ir.exit_syscall(SyscallKind::Int80, next);
        }
        n => {
            // The error code names the gate: an IDT entry (SDM volume 3, 6.13).
            let code = cx.iconst(Type::I64, n << 3 | 2);
            cx.ir.call(Helper::RaiseError, u32::from(GP), &[code]);
            cx.ir.exit_resume();
        }
    }
}

/// INT3, INT1: a trap.
fn software_trap(cx: &mut Lift<'_>, vector: u8) {
    if cx.policy(Sensitive::Int).is_some() {
        cx.ir.exit_trap(vector);
    }
}

/// SYSCALL: RCX := next RIP, R11 := RFLAGS. Outside 64-bit code #UD, as on the CPUs whose vendor
/// is not AMD.
fn syscall(cx: &mut Lift<'_>) {
    if !cx.mode.is_64() {
        return cx.ud();
    }
    let next = cx.next_offset();
    let rip = cx.ir.pc(next);
    let image = rflags_image(cx);
    cx.ir.setreg(Reg::Rcx, rip);
    cx.ir.setreg(Reg::R11, image);
    cx.ir.exit_syscall(SyscallKind::Syscall, next);
}

/// SYSENTER, which user mode uses in 32-bit code only.
fn sysenter(cx: &mut Lift<'_>) {
    if cx.mode.is_64() {
        return cx.ud();
    }
    let next = cx.next_offset();
    cx.ir.exit_syscall(SyscallKind::Sysenter, next);
}

/// CPUID: the helper reads and writes the registers.
fn cpuid(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Cpuid).is_some() {
        cx.ir.call(Helper::Cpuid, 0, &[]);
    }
}

/// EDX:EAX := the time-stamp counter.
fn write_tsc(cx: &mut Lift<'_>) {
    let v = cx.ir.call(Helper::Rdtsc, 0, &[]);
    let (low, high) = (cx.ir.ext(Type::I32, v, 0), cx.ir.ext(Type::I32, v, 32));
    cx.write_gpr(Register::EAX, low);
    cx.write_gpr(Register::EDX, high);
}

/// RDTSC.
fn rdtsc(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdtsc).is_some() {
        write_tsc(cx);
    }
}

/// RDTSCP: also ECX := IA32_TSC_AUX.
fn rdtscp(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdtscp).is_none() {
        return;
    }
    write_tsc(cx);
    let aux = cx.ir.call(Helper::TscAux, 0, &[]);
    let aux = cx.ir.trunc(Type::I32, aux);
    cx.write_gpr(Register::ECX, aux);
}

/// RDPID: the register := IA32_TSC_AUX.
fn rdpid(cx: &mut Lift<'_>) {
    let aux = cx.ir.call(Helper::TscAux, 0, &[]);
    let ty = cx.op_type(0);
    let aux = cx.ir.trunc(ty, aux);
    cx.write(0, aux);
}

/// CLFLUSH and its kin: nothing but the check of the address, as for a byte load.
fn flush(cx: &mut Lift<'_>) {
    let addr = cx.linear_of(1, false);
    cx.ir.load(Type::I8, addr, cx.operand_kind());
}

/// RDFSBASE, RDGSBASE.
fn read_base(cx: &mut Lift<'_>, base: Reg) {
    let v = cx.ir.getreg(base);
    let ty = cx.op_type(0);
    let v = cx.ir.trunc(ty, v);
    cx.write(0, v);
}

/// WRFSBASE, WRGSBASE: #GP for a non-canonical address.
fn write_base(cx: &mut Lift<'_>, base: Reg) {
    let v = cx.read(0);
    let v = cx.ir.zext(Type::I64, v);
    let sixteen = cx.iconst(Type::I64, 16);
    let up = cx.ir.shl(v, sixteen);
    let canonical = cx.ir.ashr(up, sixteen);
    let wrong = cx.ir.icmp(IntCc::Ne, canonical, v);
    cx.ir.trapif(wrong, GP);
    cx.ir.setreg(base, v);
}

/// The guest register that holds a segment's selector.
fn selector_register(segment: Register) -> Reg {
    Reg::ALL[Reg::Es as usize + segment.number()]
}

/// A segment's selector, an i16.
pub fn selector(cx: &mut Lift<'_>, segment: Register) -> Value {
    cx.ir.getreg(selector_register(segment))
}

/// Loads a segment register; may fault.
pub fn load_segment(cx: &mut Lift<'_>, segment: Register, selector: Value) {
    cx.ir
        .call(Helper::LoadSegment, segment.number() as u32, &[selector]);
}

/// True for instructions that a block must end with: those after which the code may need another
/// translation or a single step (loads of segment registers, POPF), and RDTSC, which may count
/// instructions and so must not see those that its block has paid for in advance.
pub fn ends_block(insn: &Instruction) -> bool {
    match insn.mnemonic() {
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => true,
        Mnemonic::Rdtsc | Mnemonic::Rdtscp => true,
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lss => true,
        Mnemonic::Mov | Mnemonic::Pop => {
            insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register()
        }
        _ => false,
    }
}

/// After a load of ES, SS or DS: leaves the region if the segments' bases are no longer what this
/// translation assumes (see `Mode::flat`).
pub fn check_mode(cx: &mut Lift<'_>, segment: Register) {
    if cx.mode.is_64() || matches!(segment, Register::FS | Register::GS) {
        return;
    }
    let mut bases = cx.ir.getreg(Reg::EsBase);
    for reg in [Reg::CsBase, Reg::SsBase, Reg::DsBase] {
        let base = cx.ir.getreg(reg);
        bases = cx.ir.or(bases, base);
    }
    let cc = if cx.mode.flat { IntCc::Ne } else { IntCc::Eq };
    let changed = cx.ir.icmp_imm(cc, bases, 0);
    leave_if(cx, changed);
}

/// Goes to the next instruction through the dispatcher, never through a chained jump, if `c` is
/// not 0. Only for the last instruction of a guest block.
pub fn leave_if(cx: &mut Lift<'_>, c: Value) {
    let (leave, rest) = (cx.ir.new_block(), cx.ir.new_block());
    cx.ir.brif(c, (leave, &[]), (rest, &[]));
    cx.ir.switch_to(leave);
    let next = cx.next_offset();
    let next = cx.ir.pc(next);
    cx.ir.call(Helper::LeaveAt, 0, &[next]);
    cx.ir.exit_resume();
    cx.ir.switch_to(rest);
}

/// MOV to and from segment registers; control and debug registers are privileged. Other forms are
/// not of this family.
fn mov(cx: &mut Lift<'_>) -> bool {
    let register = |n: u32| {
        if cx.insn.op_kind(n) == OpKind::Register {
            cx.insn.op_register(n)
        } else {
            Register::None
        }
    };
    let (dst, src) = (register(0), register(1));
    let special = |r: Register| r.is_cr() || r.is_dr() || r.is_tr();
    if special(dst) || special(src) {
        privileged(cx, None);
    } else if dst.is_segment_register() {
        mov_to_segment(cx, dst);
    } else if src.is_segment_register() {
        mov_from_segment(cx, src);
    } else {
        return false;
    }
    true
}

/// MOV Sreg, r/m16.
fn mov_to_segment(cx: &mut Lift<'_>, segment: Register) {
    if segment == Register::CS {
        return cx.ud();
    }
    if cx.policy(Sensitive::LoadSeg).is_none() {
        return;
    }
    let v = cx.read(1);
    let v = cx.ir.trunc(Type::I16, v);
    load_segment(cx, segment, v);
    check_mode(cx, segment);
}

/// MOV r/m, Sreg: 16 bits to memory, zero-extended into a register.
fn mov_from_segment(cx: &mut Lift<'_>, segment: Register) {
    if cx.policy(Sensitive::StoreSeg).is_none() {
        return;
    }
    let v = selector(cx, segment);
    if cx.is_mem(0) {
        let addr = cx.linear_of(2, true);
        cx.ir.store(addr, v, cx.operand_kind());
    } else {
        let ty = cx.op_type(0);
        let v = cx.ir.zext(ty, v);
        cx.write(0, v);
    }
}

/// LDS, LES, LFS, LGS, LSS: a far pointer from memory.
fn load_far(cx: &mut Lift<'_>, segment: Register) {
    if cx.policy(Sensitive::LoadSeg).is_none() {
        return;
    }
    let dest = cx.insn.op0_register();
    let ty = cx.op_type(0);
    let addr = cx.linear();
    let offset = cx.ir.load(ty, addr, AccessKind::Data);
    let addr = further(cx, addr, ty.bytes());
    let v = cx.ir.load(Type::I16, addr, AccessKind::Data);
    load_segment(cx, segment, v);
    cx.write_gpr(dest, offset);
    check_mode(cx, segment);
}

/// SGDT, SIDT: limit 0 and a base in the kernel's half, as Linux answers under UMIP.
fn store_table(cx: &mut Lift<'_>, kind: Sensitive, base: u64) {
    if cx.policy(kind).is_none() {
        return;
    }
    let ty = if cx.mode.is_64() {
        Type::I64
    } else {
        Type::I32
    };
    let addr = cx.linear();
    let limit = cx.iconst(Type::I16, 0);
    let base = cx.iconst(ty, base);
    let base_addr = further(cx, addr, 2);
    cx.ir.store(addr, limit, AccessKind::Data);
    cx.ir.store(base_addr, base, AccessKind::Data);
}

/// SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. Linux, which emulates them
/// under UMIP, keeps the upper half of a 64-bit register when the operand size is 32 bits.
fn store_word(cx: &mut Lift<'_>, kind: Sensitive, value: u64) {
    if cx.policy(kind).is_none() {
        return;
    }
    if cx.is_mem(0) {
        let addr = cx.linear();
        let v = cx.iconst(Type::I16, value);
        cx.ir.store(addr, v, AccessKind::Data);
    } else {
        let ty = cx.op_type(0);
        let v = cx.iconst(ty, value);
        let whole = Reg::gpr(cx.insn.op0_register().full_register().number());
        let old = cx.ir.getreg(whole);
        let new = cx.ir.insert(old, v, 0);
        cx.ir.setreg(whole, new);
    }
}

/// What the helper finds for the selector in operand `n`: the low half, and whether it is valid.
fn segment_info(cx: &mut Lift<'_>, n: u32, which: u32) -> (Value, Value) {
    let v = cx.read(n);
    let selector = cx.ir.trunc(Type::I16, v);
    let info = cx.ir.call(Helper::SegmentInfo, which, &[selector]);
    let valid = cx.ir.ext(Type::I8, info, 32);
    (cx.ir.trunc(Type::I32, info), valid)
}

/// LAR, LSL: the register and ZF := 1 if the selector is valid, else ZF := 0.
fn load_info(cx: &mut Lift<'_>, kind: Sensitive, which: u32) {
    if cx.policy(kind).is_none() {
        return;
    }
    let (value, valid) = segment_info(cx, 1, which);
    let dest = cx.insn.op0_register();
    let ty = cx.op_type(0);
    let value = if ty == Type::I64 {
        cx.ir.zext(Type::I64, value)
    } else {
        cx.ir.trunc(ty, value)
    };
    let whole = Reg::gpr(dest.full_register().number());
    let before = cx.ir.getreg(whole);
    cx.write_gpr(dest, value);
    let written = cx.ir.getreg(whole);
    let kept = cx.ir.select(valid, written, before);
    cx.ir.setreg(whole, kept);
    set_zf(cx, valid);
}

/// VERR, VERW: ZF := the selector can be read or written.
fn verify(cx: &mut Lift<'_>, kind: Sensitive, which: u32) {
    if cx.policy(kind).is_some() {
        let (_, valid) = segment_info(cx, 0, which);
        set_zf(cx, valid);
    }
}

/// ARPL: raises the RPL of dst to that of src; ZF tells whether it did. Selectors must name
/// descriptors.
fn arpl(cx: &mut Lift<'_>) {
    if cx.mode.system.is_some_and(|s| !s.level.is_protected()) {
        return cx.ud();
    }
    let src = cx.read(1);
    let src = cx.ir.trunc(Type::I16, src);
    let place = match cx.place(0) {
        // Written as r32 in 32-bit code, but only 16 bits are used and changed.
        Place::Reg(r) => Place::Reg(Register::AX + r.full_register().number() as u32),
        place => place,
    };
    let dst = cx.load(place);
    let three = cx.iconst(Type::I16, 3);
    let (a, b) = (cx.ir.and(dst, three), cx.ir.and(src, three));
    let less = cx.ir.icmp(IntCc::Ult, a, b);
    let rest = cx.iconst(Type::I16, 0xfffc);
    let rest = cx.ir.and(dst, rest);
    let raised = cx.ir.or(rest, b);
    let result = cx.ir.select(less, raised, dst);
    cx.store(place, result);
    set_zf(cx, less);
}
