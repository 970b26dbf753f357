//! Selectors and the guest's GDT, as far as Linux programs see them.

use crate::env::{Env, UserSegment};
use crate::state::CpuState;
use crate::user::abi::{Abi, Errno, Pack};

/// First GDT entry of `set_thread_area`.
pub const TLS_FIRST: usize = 12;
/// Number of such entries.
pub const TLS_COUNT: usize = 3;

/// Selectors of a fresh 64-bit program: CS, SS; the others are null.
pub const CODE_64: u16 = 0x33;
/// Selector of data segments.
pub const DATA: u16 = 0x2b;
/// Selector of 32-bit code.
pub const CODE_32: u16 = 0x23;

/// Loads segment register `n` (encoding order) as signal return and program start do: a selector
/// of no segment gives the null selector.
pub fn load(cpu: &mut CpuState, env: &Env, n: usize, selector: u16) {
    let index = usize::from(selector >> 3);
    let in_gdt = selector & 4 == 0;
    let segment: Option<UserSegment> = env.gdt.get(index).copied().flatten();
    let (selector, base) = match segment.filter(|_| in_gdt) {
        Some(s) => (selector | 3, s.base),
        None => (0, 0),
    };
    cpu.seg_sel[n] = selector;
    cpu.seg_base[n] = base;
}

/// Size of `user_desc`.
const USER_DESC: u64 = 16;
/// `user_desc` flag bits: 32-bit, contents (2 bits), read/execute only, limit in pages, not
/// present, usable.
const NOT_PRESENT: u32 = 1 << 5;
const FLAGS: u32 = 0b101_0001;

/// `set_thread_area`: the `user_desc` at `at` goes into the GDT; entry -1 asks for a free one,
/// whose number is written back.
pub fn set_thread_area(env: &mut Env, at: u64) -> Result<(), Errno> {
    let wanted: u32 = env.memory.read(at)?;
    let base: u32 = env.memory.read(at.wrapping_add(4))?;
    let limit: u32 = env.memory.read(at.wrapping_add(8))?;
    let flags: u32 = env.memory.read(at.wrapping_add(12))?;
    let range = TLS_FIRST..TLS_FIRST + TLS_COUNT;
    let entry = if wanted == u32::MAX {
        let free = range.clone().find(|&n| env.gdt[n].is_none());
        let free = free.ok_or(Errno(libc::ESRCH))?;
        env.memory.write_bytes(at, &(free as u32).to_le_bytes())?;
        free
    } else {
        wanted as usize
    };
    if !range.contains(&entry) {
        return Err(Errno(libc::EINVAL));
    }
    let empty = flags & NOT_PRESENT != 0 && base == 0 && limit == 0;
    env.gdt[entry] = (!empty).then_some(UserSegment {
        base: u64::from(base),
        data: true,
    });
    Ok(())
}

/// `get_thread_area`: the descriptor whose number is in the `user_desc` at `at`.
pub fn get_thread_area(env: &mut Env, at: u64) -> Result<(), Errno> {
    let entry: u32 = env.memory.read(at)?;
    let entry = entry as usize;
    if !(TLS_FIRST..TLS_FIRST + TLS_COUNT).contains(&entry) {
        return Err(Errno(libc::EINVAL));
    }
    let mut p = Pack::new(Abi::I386);
    p.u32(entry as u32);
    match env.gdt[entry] {
        Some(s) => p.u32(s.base as u32).u32(0xf_ffff).u32(FLAGS),
        None => p.u32(0).u32(0).u32(0b10_1000),
    };
    debug_assert_eq!(p.bytes.len() as u64, USER_DESC);
    p.store(&env.memory, at)
}
