//! Tests of the helpers, against the host CPU where it has the instruction.

use super::*;
use crate::cpu_model::CpuModel;
use crate::memory::{GuestMemory, PAGE, Window, page};
use metaphrase_ir::{Reg, StringKind, StringOp, flags};

const AT: u64 = 0x10000;

struct Guest {
    state: Box<CpuState>,
    env: Box<Env>,
}

impl Guest {
    /// Four pages at `AT`, then nothing.
    fn new() -> Guest {
        let memory = GuestMemory::new(Window::Bits32).unwrap();
        memory
            .map_anon(AT, 4 * PAGE, page::READ | page::WRITE)
            .unwrap();
        let mut env = Env::new(memory, CpuModel::max());
        let mut state = CpuState::new();
        env.attach(&mut state);
        Guest { state, env }
    }

    fn call(&mut self, helper: Helper, descriptor: u32, args: [u64; 3]) -> u64 {
        let f = TABLE.helpers[helper as usize];
        let state = (&raw mut *self.state).cast();
        // SAFETY: the state is attached to the environment, and nobody else uses them.
        unsafe { f(state, descriptor.into(), args[0], args[1], args[2]) }
    }

    fn rep(&mut self, kind: StringKind, size: u32, addr: u32, repne: bool) -> u64 {
        let op = StringOp {
            segment: 3,
            checked: false,
            aligned: false,
            kind,
            size,
            addr,
            repne,
            long: true,
        };
        self.call(Helper::RepString, op.pack(), [0; 3])
    }

    /// Runs the instruction to its end or to a fault.
    fn rep_whole(&mut self, kind: StringKind, size: u32, repne: bool) {
        while self.rep(kind, size, 8, repne) == 1 {}
    }

    fn set(&mut self, rcx: u64, rsi: u64, rdi: u64) {
        let g = &mut self.state.gpr;
        (g[1], g[6], g[7]) = (rcx, rsi, rdi);
    }

    fn regs(&self) -> (u64, u64, u64) {
        let g = &self.state.gpr;
        (g[1], g[6], g[7])
    }
}

fn rng(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn calls_are_counted() {
    let mut g = Guest::new();
    g.call(Helper::Pdep, 0, [1, 2, 0]);
    g.call(Helper::Pdep, 0, [1, 2, 0]);
    assert_eq!(g.env.helper_calls[Helper::Pdep as usize], 2);
    assert_eq!(g.env.helper_calls[Helper::Pext as usize], 0);
}

#[test]
fn deposit_undoes_extract() {
    let mut g = Guest::new();
    let mut seed = 3;
    for _ in 0..1000 {
        let (a, mask) = (rng(&mut seed), rng(&mut seed) & rng(&mut seed));
        let packed = g.call(Helper::Pext, 0, [a, mask, 0]);
        assert_eq!(packed >> mask.count_ones(), 0);
        assert_eq!(g.call(Helper::Pdep, 0, [packed, mask, 0]), a & mask);
    }
    assert_eq!(g.call(Helper::Pext, 0, [0xabcd, 0xf0f0, 0]), 0xac);
    assert_eq!(g.call(Helper::Pdep, 0, [0xac, 0xf0f0, 0]), 0xa0c0);
}

#[test]
fn crc32_of_the_standard_check_string() {
    let mut g = Guest::new();
    let mut crc = 0xffff_ffff;
    for chunk in b"123456789".chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        crc = g.call(
            Helper::Crc32,
            chunk.len() as u32,
            [crc, u64::from_le_bytes(bytes), 0],
        );
    }
    assert_eq!(crc ^ 0xffff_ffff, 0xe306_9283);
}

#[test]
fn wide_division_multiplies_back() {
    let mut g = Guest::new();
    let mut seed = 5;
    for _ in 0..1000 {
        let (by, low) = (rng(&mut seed) | 1, rng(&mut seed));
        let high = rng(&mut seed) % by;
        let q = g.call(Helper::UDivW, 0, [high, low, by]);
        let rest = (u128::from(high) << 64 | u128::from(low)) - u128::from(q) * u128::from(by);
        assert!(rest < u128::from(by));
    }
    let minus = |n: i64| n as u64;
    assert_eq!(
        g.call(Helper::SDivW, 0, [minus(-1), minus(-7), 2]),
        minus(-3)
    );
    assert_eq!(
        g.call(Helper::SDivFits, 0, [minus(-1), 1 << 63, minus(-1)]),
        0
    );
    assert_eq!(g.call(Helper::SDivFits, 0, [minus(-1), 1 << 63, 1]), 1);
    assert_eq!(g.call(Helper::SDivFits, 0, [0, 5, 0]), 0);
}

#[test]
fn cpuid_answers_in_four_registers() {
    let mut g = Guest::new();
    (g.state.gpr[0], g.state.gpr[1]) = (0xffff_ffff_0000_0000, 0);
    g.call(Helper::Cpuid, 0, [0; 3]);
    let [a, b, c, d] = CpuModel::max().cpuid(0, 0).map(u64::from);
    let gpr = &g.state.gpr;
    assert_eq!([gpr[0], gpr[3], gpr[1], gpr[2]], [a, b, c, d]);
}

#[test]
fn the_instruction_tsc_counts_fuel() {
    let mut g = Guest::new();
    g.env.add_fuel(&mut g.state, 1000);
    g.state.fuel -= 123;
    assert_eq!(g.call(Helper::Rdtsc, 0, [0; 3]), 123);
}

#[test]
fn segments_load_by_the_rules_of_cpl_3() {
    let mut g = Guest::new();
    g.env.gdt[12] = Some(crate::env::UserSegment {
        base: 0x1234,
        data: true,
    });
    g.call(Helper::LoadSegment, 5, [0x63, 0, 0]);
    assert_eq!((g.state.seg_sel[5], g.state.seg_base[5]), (0x63, 0x1234));
    g.call(Helper::LoadSegment, 5, [0, 0, 0]);
    assert_eq!((g.state.seg_sel[5], g.state.seg_base[5]), (0, 0));
    assert_eq!(g.state.exit_reason, 0);
    for (register, selector, code) in [
        (2, 0, 0),
        (2, 0x23, 0x20),
        (2, 0x28, 0x28),
        (3, 0x7b, 0x78),
        (3, 0x2f, 0x2c),
    ] {
        g.state.exit_reason = 0;
        g.call(Helper::LoadSegment, register, [selector, 0, 0]);
        assert_eq!(
            g.state.exit_reason,
            ExitReason::Exception as u32,
            "{selector:#x}"
        );
        assert_eq!(g.state.exit_info, exception_info(13, Some(code)));
    }
}

#[test]
fn popf_leaves_what_user_mode_may_not_change() {
    let mut g = Guest::new();
    g.call(Helper::Popf, 8, [u64::MAX, 0, 0]);
    assert_eq!(g.state.rflags(), 0x24_4fd7);
    g.call(Helper::Popf, 2, [0, 0, 0]);
    assert_eq!(g.state.rflags(), 0x24_0202);
    assert_eq!(g.call(Helper::PushfImage, 0, [0; 3]), 0x24_0202);
}

#[test]
fn a_count_of_zero_does_nothing() {
    for kind in [StringKind::Movs, StringKind::Cmps, StringKind::Lods] {
        let mut g = Guest::new();
        g.state.set_rflags(flags::CF | flags::OF);
        g.set(0, 1, 2);
        assert_eq!(g.rep(kind, 4, 8, false), 0);
        assert_eq!(g.regs(), (0, 1, 2));
        assert_eq!(g.state.arith_flags(), flags::CF | flags::OF);
        assert_eq!(g.state.exit_reason, 0);
    }
}

#[test]
fn a_fault_shows_what_has_been_done() {
    let mut g = Guest::new();
    let end = AT + 4 * PAGE;
    g.set(10, AT, end - 8 * 3 - 4);
    g.rep_whole(StringKind::Movs, 8, false);
    assert_eq!(g.state.exit_reason, ExitReason::Memory as u32);
    assert_eq!((g.state.fault_addr, g.state.exit_info), (end, 1));
    assert_eq!(g.regs(), (7, AT + 24, end - 4));

    let mut g = Guest::new();
    g.set(1 << 40, AT, end - 9);
    g.rep_whole(StringKind::Stos, 1, false);
    assert_eq!((g.regs().0, g.regs().2), ((1 << 40) - 9, end));

    // CMPS keeps the flags from before the instruction.
    let mut g = Guest::new();
    g.state.set_rflags(flags::CF);
    g.set(10, AT, end - 3);
    g.rep_whole(StringKind::Cmps, 1, false);
    assert_eq!((g.state.exit_info, g.regs().0), (0, 7));
    assert_eq!(g.state.arith_flags(), flags::CF);
}

#[test]
fn address_sizes_wrap_and_write_their_part() {
    let mut g = Guest::new();
    let high = 0xaaaa_0000_0000_0000;
    g.env
        .memory
        .map_anon(0, PAGE, page::READ | page::WRITE)
        .unwrap();
    g.env
        .memory
        .map_anon(0xf000, PAGE, page::READ | page::WRITE)
        .unwrap();
    g.env.memory.write(0xffff, 0x55u8).unwrap();
    g.env.memory.write(0, 0x66u8).unwrap();
    g.set(high | 2, high | 0xffff, high | AT | 0x10);
    g.rep(StringKind::Movs, 1, 4, false);
    assert_eq!(g.regs(), (0, 0x1_0001, AT + 0x12));
    g.set(high | 2, high | 0xffff, high | 0x20);
    g.rep(StringKind::Movs, 1, 2, false);
    assert_eq!(g.regs(), (high, high | 1, high | 0x22));
    assert_eq!(g.env.memory.read::<u16>(0x20), Ok(0x6655));
}

/// The same instruction on the host, on a copy of the pages.
#[cfg(target_arch = "x86_64")]
mod host {
    use super::*;
    use std::arch::asm;

    macro_rules! native {
        ($($name:ident $text:literal;)*) => {$(
            fn $name(regs: &mut [u64; 4], backwards: bool) -> u64 {
                let [mut rax, mut rcx, mut rsi, mut rdi] = *regs;
                let mut image: u64 = 0;
                // SAFETY: the caller's pointers and count stay in its buffer; DF is put back.
                unsafe {
                    asm!(
                        "test {back:r}, {back:r}",
                        "jz 2f",
                        "std",
                        "2:",
                        $text,
                        "pushfq",
                        "pop {image}",
                        "cld",
                        back = in(reg) u64::from(backwards),
                        image = out(reg) image,
                        inout("rax") rax,
                        inout("rcx") rcx,
                        inout("rsi") rsi,
                        inout("rdi") rdi,
                    );
                }
                *regs = [rax, rcx, rsi, rdi];
                image & flags::ARITH
            }
        )*};
    }

    native! {
        movsb "rep movsb"; movsw "rep movsw"; movsd "rep movsd"; movsq "rep movsq";
        stosb "rep stosb"; stosw "rep stosw"; stosd "rep stosd"; stosq "rep stosq";
        lodsb "rep lodsb"; lodsw "rep lodsw"; lodsd "rep lodsd"; lodsq "rep lodsq";
        cmpsb "repe cmpsb"; cmpsw "repe cmpsw"; cmpsd "repe cmpsd"; cmpsq "repe cmpsq";
        cmpsbn "repne cmpsb"; cmpswn "repne cmpsw"; cmpsdn "repne cmpsd"; cmpsqn "repne cmpsq";
        scasb "repe scasb"; scasw "repe scasw"; scasd "repe scasd"; scasq "repe scasq";
        scasbn "repne scasb"; scaswn "repne scasw"; scasdn "repne scasd"; scasqn "repne scasq";
    }

    type Native = fn(&mut [u64; 4], bool) -> u64;
    type Row = (StringKind, bool, [Native; 4]);

    const ROWS: [Row; 7] = [
        (StringKind::Movs, false, [movsb, movsw, movsd, movsq]),
        (StringKind::Stos, false, [stosb, stosw, stosd, stosq]),
        (StringKind::Lods, false, [lodsb, lodsw, lodsd, lodsq]),
        (StringKind::Cmps, false, [cmpsb, cmpsw, cmpsd, cmpsq]),
        (StringKind::Cmps, true, [cmpsbn, cmpswn, cmpsdn, cmpsqn]),
        (StringKind::Scas, false, [scasb, scasw, scasd, scasq]),
        (StringKind::Scas, true, [scasbn, scaswn, scasdn, scasqn]),
    ];

    #[test]
    fn rep_does_what_the_host_does() {
        let mut seed = 77;
        let mut g = Guest::new();
        let mut bytes = vec![0u8; 4 * PAGE as usize];
        for round in 0..4000 {
            for byte in &mut bytes {
                // Few values, so that comparisons go on for a while.
                *byte = if round % 2 == 0 {
                    0
                } else {
                    (rng(&mut seed) >> 60) as u8 & 1
                };
            }
            let spot = (rng(&mut seed) % (bytes.len() as u64)) as usize;
            bytes[spot] = rng(&mut seed) as u8;
            g.env.memory.write_bytes(AT, &bytes).unwrap();
            let (kind, repne, natives) = ROWS[(rng(&mut seed) >> 8) as usize % ROWS.len()];
            let log = (rng(&mut seed) >> 8) as usize % 4;
            let size = 1u64 << log;
            let back = rng(&mut seed) & 0x300 == 0;
            let count = 1 + (rng(&mut seed) >> 8) % (if round % 3 == 0 { 700 } else { 20 });
            // Source and destination often overlap.
            let room = count * size;
            let from = room + (rng(&mut seed) >> 8) % (4 * PAGE - 2 * room);
            let near = (rng(&mut seed) >> 8) % 24;
            let to = match rng(&mut seed) >> 8 & 1 {
                0 => room + (rng(&mut seed) >> 8) % (4 * PAGE - 2 * room),
                _ => (from + near).clamp(room, 4 * PAGE - room - 1),
            };
            let rax = if kind == StringKind::Scas {
                0
            } else {
                rng(&mut seed)
            };

            g.state.df = if back { -1 } else { 1 };
            g.state.set_rflags(g.state.rflags() & flags::DF);
            g.state.gpr[0] = rax;
            g.set(count, AT + from, AT + to);
            g.rep_whole(kind, size as u32, repne);
            assert_eq!(g.state.exit_reason, 0);

            let start = bytes.as_mut_ptr() as u64;
            let mut regs = [rax, count, start + from, start + to];
            let image = natives[log](&mut regs, back);
            let ours = g.state.gpr;
            let text = format!("{kind:?} {size} count {count} from {from} to {to} back {back}");
            let want = [regs[0], regs[1], regs[2] - start + AT, regs[3] - start + AT];
            assert_eq!([ours[0], ours[1], ours[6], ours[7]], want, "{text}");
            if matches!(kind, StringKind::Cmps | StringKind::Scas) {
                assert_eq!(g.state.arith_flags(), image, "{text}");
            }
            let mut after = vec![0; bytes.len()];
            g.env.memory.read_bytes(AT, &mut after).unwrap();
            assert!(after == bytes, "{text}: memory differs");
        }
    }
}

#[test]
fn long_runs_come_back_for_more() {
    let mut g = Guest::new();
    g.state.gpr[Reg::Rax as usize] = 0x11;
    g.env
        .memory
        .map_anon(0x100_0000, 64 * PAGE, page::READ | page::WRITE)
        .unwrap();
    g.set(50_000, 0, 0x100_0000);
    assert_eq!(g.rep(StringKind::Stos, 1, 8, false), 1);
    assert!(g.regs().0 < 50_000 && g.regs().0 > 0);
    g.rep_whole(StringKind::Stos, 1, false);
    assert_eq!(g.regs().2, 0x100_0000 + 50_000);
    assert_eq!(g.env.memory.read::<u16>(0x100_0000 + 49_999), Ok(0x11));
}
