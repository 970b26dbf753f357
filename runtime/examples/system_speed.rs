//! How fast a whole system's processor runs: a loop with loads, stores, calls and a page change,
//! in 32-bit code without paging. `system_speed [interp|jit|tiered] [INSTRUCTIONS]`.

use iced_x86::code_asm::*;
use metaphrase_runtime::machine::Parts;
use metaphrase_runtime::memory::PhysMemory;
use metaphrase_runtime::system::attr;
use metaphrase_runtime::{CpuModel, Engine, Machine, Options};
use std::time::Instant;

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut outer, mut inner, mut f) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut outer)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut inner)?;
    a.mov(eax, dword_ptr(ecx * 4 + 0x2_0000))?;
    a.add(eax, ecx)?;
    a.mov(dword_ptr(ecx * 4 + 0x3_0000), eax)?;
    a.inc(ecx)?;
    a.cmp(ecx, 4096)?;
    a.jne(inner)?;
    a.call(f)?;
    a.jmp(outer)?;
    // On another page.
    while a.instructions().len() < 4200 {
        a.nop()?;
    }
    a.set_label(&mut f)?;
    a.inc(dword_ptr(0x1_0000))?;
    a.ret()?;
    a.assemble(0x10_0000)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let engine = args.next().unwrap_or_else(|| "tiered".to_string());
    let engine = Engine::from_name(&engine).ok_or("interp, jit or tiered")?;
    let budget: u64 = args.next().map_or(Ok(100_000_000), |n| n.parse())?;
    let mut memory = PhysMemory::new();
    memory.add_ram(0, 16 << 20)?;
    memory.write_bytes(0x10_0000, &program()?);
    let options = Options {
        engine,
        ..Options::default()
    };
    let mut machine = Machine::new(Parts::new(memory, CpuModel::max(), options))?;
    let s = machine.state_mut();
    s.rip = 0x10_0000;
    s.seg_base = [0; 6];
    s.gpr[4] = 0x8000;
    s.sys.cr0 |= 1;
    s.sys.seg_limit = [u32::MAX; 6];
    const FLAT: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
    s.sys.seg_attr = [FLAT; 6];
    s.sys.seg_attr[1] |= attr::CODE;
    machine.touch();
    let begun = Instant::now();
    let stop = machine.run(budget)?;
    let ns = begun.elapsed().as_nanos() as f64 / machine.instructions() as f64;
    println!(
        "{stop:?} after {} instructions, {ns:.2} ns each",
        machine.instructions()
    );
    Ok(())
}
