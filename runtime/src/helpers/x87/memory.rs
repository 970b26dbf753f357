//! x87 instructions with a memory operand.
//!
//! Memory is read before anything changes. A store goes to memory before the status and the stack
//! change, so that a fault leaves both alone.

use super::ops::Source;
use super::stack::*;
use super::{Cx, control, convert, fpu, image, unordered_fault};
use crate::memory::{GuestMemory, MemFault};
use crate::state::{X87Reg, X87State};
use crate::system::mode;
use metaphrase_ir::X87Op;

/// What a load gives: the value and the status flags of loading it.
type Loaded = (X87Reg, u16);

/// One instruction; leaves with the fault of its operand, if there is one.
#[inline(never)]
pub fn run(cx: &Cx, op: X87Op, addr: u64, pc: u64) {
    if let Err(fault) = instruction(cx, op, addr, pc) {
        cx.fault(fault);
    }
}

/// How environments are written where the instruction runs.
#[cold]
fn format(cx: &Cx, op: X87Op) -> image::Format {
    let system = cx.env().memory.paged().is_some();
    image::Format {
        short: op.short,
        linear: system && !mode::level(cx.state()).is_protected(),
    }
}

/// One instruction, by opcode and reg field: `0o14` is D9 /4.
#[inline(always)]
fn instruction(cx: &Cx, op: X87Op, addr: u64, pc: u64) -> Result<(), MemFault> {
    let reg = op.modrm >> 3 & 7;
    let state = cx.state();
    let segment = usize::from(op.segment.min(5));
    let (cs, ds) = (state.seg_sel[1], state.seg_sel[segment]);
    let base = if op.based { state.seg_base[segment] } else { 0 };
    let f = &mut state.x87;
    let memory = &cx.env().memory;
    match op.escape << 3 | reg {
        0o14 => return image::load_environment(f, memory, addr, format(cx, op)).map(|_| ()),
        0o15 => {
            f.set_control(memory.read(addr)?);
            return Ok(());
        }
        0o16 => return image::store_environment(f, memory, addr, format(cx, op)),
        0o17 => return memory.write(addr, f.control),
        0o54 => return image::restore(f, memory, addr, format(cx, op)),
        0o56 => return image::save(f, memory, addr, format(cx, op)),
        0o57 => return memory.write(addr, f.status_word()),
        0o00..=0o07 => arithmetic(f, reg, Source::F32(memory.read(addr)?)),
        0o20..=0o27 => arithmetic(f, reg, Source::I32(memory.read::<u32>(addr)? as i32)),
        0o40..=0o47 => arithmetic(f, reg, Source::F64(memory.read(addr)?)),
        0o60..=0o67 => arithmetic(f, reg, Source::I16(memory.read::<u16>(addr)? as i16)),
        0o10 => load_real(f, Source::F32(memory.read(addr)?)),
        0o50 => load_real(f, Source::F64(memory.read(addr)?)),
        0o30 => push(
            f,
            (
                convert::from_int(i64::from(memory.read::<u32>(addr)? as i32)),
                0,
            ),
        ),
        0o70 => push(
            f,
            (
                convert::from_int(i64::from(memory.read::<u16>(addr)? as i16)),
                0,
            ),
        ),
        0o75 => push(f, (convert::from_int(memory.read::<u64>(addr)? as i64), 0)),
        0o35 => push(f, (read_extended(memory, addr)?, 0)),
        0o74 => {
            let mut bytes = [0; 10];
            memory.read_bytes(addr, &mut bytes)?;
            push(f, fpu::load_bcd(control(f), bytes));
        }
        0o12 | 0o13 => store_f32(f, memory, addr, reg == 3)?,
        0o52 | 0o53 => store_f64(f, memory, addr, reg == 3)?,
        0o37 => store_extended(f, memory, addr)?,
        0o76 => store_bcd(f, memory, addr)?,
        // FISTTP, FIST, FISTP.
        0o31..=0o33 => store_int(f, memory, addr, 4, reg)?,
        0o51 | 0o77 => store_int(f, memory, addr, 8, reg)?,
        0o71..=0o73 => store_int(f, memory, addr, 2, reg)?,
        _ => return Ok(()),
    }
    f.opcode = u16::from(op.escape) << 8 | u16::from(op.modrm);
    (f.ip, f.cs) = (pc, cs);
    (f.dp, f.ds) = (addr.wrapping_sub(base), ds);
    Ok(())
}

/// FADD and its kin with an operand in memory; FCOM, FCOMP.
#[inline(never)]
fn arithmetic(f: &mut X87State, reg: u8, source: Source) {
    if matches!(reg, 2 | 3) {
        return compare(f, source, reg == 3);
    }
    if f.is_empty(0) {
        if f.stack_fault(false) {
            f.set(0, X87Reg::INDEFINITE);
        }
        return;
    }
    let (v, sw) = fpu::arith(f, super::arith_of(reg), control(f), f.st(0), source);
    if !f.commit(sw, C1, EARLY) {
        f.set(0, v);
    }
}

/// FCOM, FCOMP, FICOM, FICOMP.
#[inline(never)]
fn compare(f: &mut X87State, source: Source, pop: bool) {
    let stopped = if f.is_empty(0) {
        !unordered_fault(f)
    } else {
        let sw = fpu::compare(control(f), f.st(0), source, false);
        f.commit(sw, C0 | C1 | C2 | C3, IE | DE)
    };
    if pop && !stopped {
        f.pop();
    }
}

/// Pushes what was loaded, unless its exceptions forbid it.
#[inline(always)]
fn push(f: &mut X87State, (v, sw): Loaded) {
    if !f.is_empty(7) {
        if f.stack_fault(true) {
            f.push(X87Reg::INDEFINITE);
        }
    } else if !f.commit(sw & !C1, C1, IE) {
        f.push(v);
    }
}

/// FLD m32, FLD m64.
#[inline(never)]
fn load_real(f: &mut X87State, source: Source) {
    let fast = match source {
        Source::F64(bits) => convert::from_f64(bits),
        Source::F32(bits) => convert::from_f32(bits),
        _ => None,
    };
    let loaded = match fast {
        Some(v) => (v, 0),
        None => fpu::load(f, control(f), source),
    };
    push(f, loaded);
}

/// What a store takes: ST(0), or the indefinite value of a masked stack underflow. `None`: the
/// underflow is not masked.
#[inline(always)]
fn top(f: &mut X87State) -> Option<X87Reg> {
    if f.is_empty(0) { None } else { Some(f.st(0)) }
}

/// Ends a store: the flags, and the pop. The memory has been written.
#[inline(always)]
fn finish(f: &mut X87State, sw: u16, pop: bool) {
    f.commit(sw, C1, 0);
    if pop {
        f.pop();
    }
}

/// True if an exception of a store forbids the store; then its flags are set.
fn refused(f: &mut X87State, sw: u16, stops: u16) -> bool {
    sw & stops & !f.control & EXCEPTIONS != 0 && f.commit(sw, C1, stops)
}

/// A store from an empty register: `write` stores the indefinite value if that is masked.
#[cold]
fn store_empty(
    f: &mut X87State,
    pop: bool,
    write: impl FnOnce() -> Result<(), MemFault>,
) -> Result<(), MemFault> {
    if f.control & IE != 0 {
        write()?;
    }
    if f.stack_fault(false) && pop {
        f.pop();
    }
    Ok(())
}

/// FST, FSTP m32.
#[inline(never)]
fn store_f32(f: &mut X87State, m: &GuestMemory, addr: u64, pop: bool) -> Result<(), MemFault> {
    let Some(v) = top(f) else {
        return store_empty(f, pop, || m.write(addr, 0xffc0_0000u32));
    };
    let (bits, sw) = match convert::to_f32(v, f.control) {
        Some(fast) => fast,
        None => fpu::store_f32(f, control(f), v),
    };
    if refused(f, sw, IE | DE | OE | UE) {
        return Ok(());
    }
    m.write(addr, bits)?;
    finish(f, sw, pop);
    Ok(())
}

/// FST, FSTP m64.
#[inline(never)]
fn store_f64(f: &mut X87State, m: &GuestMemory, addr: u64, pop: bool) -> Result<(), MemFault> {
    let Some(v) = top(f) else {
        return store_empty(f, pop, || m.write(addr, 0xfff8_0000_0000_0000u64));
    };
    let (bits, sw) = match convert::to_f64(v, f.control) {
        Some(fast) => fast,
        None => fpu::store_f64(f, control(f), v),
    };
    if refused(f, sw, IE | DE | OE | UE) {
        return Ok(());
    }
    m.write(addr, bits)?;
    finish(f, sw, pop);
    Ok(())
}

/// FSTP m80.
fn store_extended(f: &mut X87State, m: &GuestMemory, addr: u64) -> Result<(), MemFault> {
    let Some(v) = top(f) else {
        return store_empty(f, true, || write_extended(m, addr, X87Reg::INDEFINITE));
    };
    write_extended(m, addr, v)?;
    finish(f, 0, true);
    Ok(())
}

/// FBSTP.
#[inline(never)]
fn store_bcd(f: &mut X87State, m: &GuestMemory, addr: u64) -> Result<(), MemFault> {
    let Some(v) = top(f) else {
        let indefinite = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
        return store_empty(f, true, || write_ten(m, addr, indefinite));
    };
    let (bytes, sw) = fpu::store_bcd(control(f), v);
    if refused(f, sw, IE | DE) {
        return Ok(());
    }
    write_ten(m, addr, bytes)?;
    finish(f, sw, true);
    Ok(())
}

/// FISTTP (reg 1), FIST (2), FISTP (3 and 7).
#[inline(never)]
fn store_int(
    f: &mut X87State,
    m: &GuestMemory,
    addr: u64,
    bytes: u32,
    reg: u8,
) -> Result<(), MemFault> {
    let pop = reg != 2;
    let write = |bits: u64| match bytes {
        2 => m.write(addr, bits as u16),
        4 => m.write(addr, bits as u32),
        _ => m.write(addr, bits),
    };
    let Some(v) = top(f) else {
        return store_empty(f, pop, || write(1 << (bytes * 8 - 1)));
    };
    let truncate = if reg == 1 { 0xc00 } else { 0 };
    let (bits, sw) = fpu::store_int(control(f) | truncate, v, bytes);
    if refused(f, sw, IE | DE) {
        return Ok(());
    }
    write(bits)?;
    finish(f, sw, pop);
    Ok(())
}

/// Reads an 80-bit value.
pub fn read_extended(m: &GuestMemory, addr: u64) -> Result<X87Reg, MemFault> {
    m.check(addr, 10, false)?;
    Ok(X87Reg {
        mantissa: m.read(addr)?,
        exponent: u64::from(m.read::<u16>(addr.wrapping_add(8))?),
    })
}

/// Writes an 80-bit value, or nothing.
pub fn write_extended(m: &GuestMemory, addr: u64, v: X87Reg) -> Result<(), MemFault> {
    m.check(addr, 10, true)?;
    m.write(addr, v.mantissa)?;
    m.write(addr.wrapping_add(8), v.exponent as u16)
}

/// Writes ten bytes, or nothing.
fn write_ten(m: &GuestMemory, addr: u64, bytes: [u8; 10]) -> Result<(), MemFault> {
    let word = u128::from_le_bytes(std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0)));
    let v = X87Reg {
        mantissa: word as u64,
        exponent: (word >> 64) as u64,
    };
    write_extended(m, addr, v)
}
