//! The soft TLB in compiled code: what hits, what goes to a helper, and how long a hit is.

mod machine;

use machine::{Machine, PC, State, helpers, region};
use metaphrase_backend::{
    CompiledRegion, HelperTable, MemoryModel, OptLevel, Options, Regalloc, TLB_ENTRIES, TlbAccess,
    TlbEntry,
};
use metaphrase_ir::{AccessKind, Builder, ExitReason, Reg, Region, RmwOp, Type, Value};
use std::cell::RefCell;
use std::ffi::c_void;

/// A call of a helper: which, access, address, two more arguments.
type Call = (&'static str, TlbAccess, u64, u64, u64);

thread_local! {
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

fn calls() -> Vec<Call> {
    CALLS.take()
}

/// Helpers refuse accesses of this page.
const REFUSED: u64 = 0x7777_0000;

/// What helpers answer.
fn answer(addr: u64) -> u64 {
    addr.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

unsafe extern "C" fn called<const N: usize>(
    state: *mut c_void,
    access: u64,
    addr: u64,
    b: u64,
    c: u64,
) -> u64 {
    let name = ["load", "store", "rmw", "cas"][N];
    let access = TlbAccess::unpack(access);
    CALLS.with_borrow_mut(|calls| calls.push((name, access, addr, b, c)));
    // SAFETY: compiled code passes the state that the test entered it with.
    let state = unsafe { &mut *state.cast::<State>() };
    if addr & !0xfff == REFUSED {
        state.exit_reason = ExitReason::Memory as u32;
        state.fault_addr = addr;
        state.exit_info = u64::from(name != "load");
    }
    if access.bytes == 16 && name != "store" {
        state.helper_v[0] = u128::from(answer(addr)) << 64 | u128::from(addr);
    }
    answer(addr)
}

fn table() -> HelperTable {
    HelperTable {
        load: called::<0>,
        store: called::<1>,
        rmw: called::<2>,
        cas: called::<3>,
        ..helpers()
    }
}

/// A machine with one readable page, one writable one, and one that may be read and written.
struct Soft {
    m: Machine,
    tlb: Box<[TlbEntry]>,
    pages: Box<[Page; 3]>,
}

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; 4096]);

const READ: u64 = 0xffff_8000_1234_5000;
const WRITE: u64 = 0x4000_0000;
const BOTH: u64 = 0x7fff_f000;

impl Soft {
    fn new(options: Options) -> Soft {
        let options = Options {
            memory: MemoryModel::SoftTlb,
            verify_clif: true,
            ..options
        };
        let mut m = Machine::with_helpers(options, 1 << 20, table());
        let mut tlb = (0..TLB_ENTRIES).map(TlbEntry::empty).collect::<Box<[_]>>();
        let mut pages = Box::new([Page([0; 4096]); 3]);
        let at = |linear: u64| (linear / 4096) as usize % TLB_ENTRIES;
        for (n, linear) in [READ, WRITE, BOTH].into_iter().enumerate() {
            for (k, byte) in pages[n].0.iter_mut().enumerate() {
                *byte = (k * 7 + n) as u8;
            }
            let slow = TlbEntry::slow(linear);
            tlb[at(linear)] = TlbEntry {
                read: if linear == WRITE { slow } else { linear },
                write: if linear == READ { slow } else { linear },
                addend: (pages[n].0.as_mut_ptr() as u64).wrapping_sub(linear),
                phys: 0,
            };
        }
        m.state.tlb = tlb.as_mut_ptr();
        m.state.mem_base = 0;
        m.state.mem_limit = 0;
        Soft { m, tlb, pages }
    }

    fn page(&mut self, linear: u64) -> &mut [u8; 4096] {
        let n = [READ, WRITE, BOTH]
            .iter()
            .position(|&p| p == linear & !0xfff);
        &mut self.pages[n.expect("a page of the test's")].0
    }

    fn bytes(&mut self, linear: u64, n: usize) -> Vec<u8> {
        let at = linear as usize % 4096;
        self.page(linear)[at..at + n].to_vec()
    }

    /// RBX := the load of that type at RAX; RIP and fuel show whether it came to its end.
    fn run(&mut self, r: &Region) -> ExitReason {
        self.m.state.fuel = 1000;
        self.m.run(r).0
    }
}

fn each(mut test: impl FnMut(&mut Soft)) {
    for opt in [OptLevel::None, OptLevel::Speed] {
        for regalloc in [Regalloc::Backtracking, Regalloc::SinglePass] {
            test(&mut Soft::new(Options {
                opt,
                regalloc,
                ..Options::default()
            }));
        }
    }
}

const TYPES: [Type; 7] = [
    Type::I8,
    Type::I16,
    Type::I32,
    Type::I64,
    Type::F32,
    Type::F64,
    Type::V128,
];

/// Writes a value of any type to XMM0.
fn keep(b: &mut Builder<'_>, v: Value, ty: Type) {
    let v = match ty {
        Type::V128 => return b.setreg(Reg::Xmm0, v),
        Type::F32 => b.bitcast(Type::I32, v),
        Type::F64 => b.bitcast(Type::I64, v),
        _ => v,
    };
    let wide = if ty.bytes() == 8 {
        v
    } else {
        b.zext(Type::I64, v)
    };
    b.setreg(Reg::Rbx, wide);
}

fn loading(ty: Type, kind: AccessKind) -> Region {
    region(3, |b| {
        b.fuel(3);
        b.set_insn(1);
        let at = b.getreg(Reg::Rax);
        let v = b.load(ty, at, kind);
        keep(b, v, ty);
        b.exit_jump(12);
    })
}

fn storing(ty: Type) -> Region {
    region(3, |b| {
        b.fuel(3);
        b.set_insn(1);
        let at = b.getreg(Reg::Rax);
        let v = match ty {
            Type::V128 => b.getreg(Reg::Xmm1),
            _ => {
                let int = Type::int(ty.bytes());
                let v = b.getreg(Reg::Rcx);
                let v = if int == Type::I64 { v } else { b.trunc(int, v) };
                if int == ty { v } else { b.bitcast(ty, v) }
            }
        };
        b.store(at, v, AccessKind::Data);
        b.exit_jump(12);
    })
}

/// Little-endian bytes as a number.
fn number(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u128::from(b))
}

fn cut(value: u128, bytes: u32) -> u128 {
    value & u128::MAX >> (128 - 8 * bytes)
}

impl Soft {
    /// What `keep` has kept.
    fn kept(&self, ty: Type) -> u128 {
        if ty == Type::V128 {
            self.m.state.xmm[0]
        } else {
            self.m.state.gpr[3].into()
        }
    }
}

#[test]
fn loads_hit_or_ask() {
    each(|s| {
        for ty in TYPES {
            let n = ty.bytes();
            let plain = loading(ty, AccessKind::Data);
            for linear in [READ, READ + 1, BOTH + 0x7f3, READ + 4096 - u64::from(n)] {
                s.m.state.gpr[0] = linear;
                assert_eq!(s.run(&plain), ExitReason::Jump);
                let there = number(&s.bytes(linear, n as usize));
                assert_eq!(s.kept(ty), there, "{ty} at {linear:#x}");
                assert_eq!(calls(), []);
            }
            let access = |update| TlbAccess {
                bytes: n as u8,
                op: 0,
                update,
            };
            let asked = |s: &mut Soft, r: &Region, linear, update| {
                s.m.state.gpr[0] = linear;
                assert_eq!(s.run(r), ExitReason::Jump);
                assert_eq!(calls(), [("load", access(update), linear, 0, 0)]);
                let all = u128::from(answer(linear));
                let wanted = match ty {
                    Type::V128 => all << 64 | u128::from(linear),
                    _ => cut(all, n),
                };
                assert_eq!(s.kept(ty), wanted);
            };
            // Other pages at the same index; a slow one; the end of a page.
            let same_index = TLB_ENTRIES as u64 * 4096;
            asked(s, &plain, READ + same_index, false);
            asked(s, &plain, BOTH - same_index, false);
            asked(s, &plain, WRITE + 8, false);
            asked(s, &plain, 0, false);
            asked(s, &plain, u64::MAX, false);
            for bit in 12..64 {
                asked(s, &plain, (WRITE + 16) ^ 1 << bit, false);
            }
            if n > 1 {
                asked(s, &plain, READ + 4097 - u64::from(n), false);
                asked(s, &plain, READ + 4095, false);
            }
            // Reads that need the right to write.
            let update = loading(ty, AccessKind::Update);
            asked(s, &update, READ + 16, true);
            s.m.state.gpr[0] = BOTH + 32;
            assert_eq!(s.run(&update), ExitReason::Jump);
            assert_eq!(s.kept(ty), number(&s.bytes(BOTH + 32, n as usize)));
            assert_eq!(calls(), []);
        }
    });
}

#[test]
fn stores_hit_or_ask() {
    each(|s| {
        let value: u128 = 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff01;
        s.m.state.gpr[1] = value as u64;
        s.m.state.xmm[1] = value;
        for ty in TYPES {
            let n = ty.bytes();
            let r = storing(ty);
            for linear in [WRITE, BOTH + 0x123, WRITE + 4096 - u64::from(n)] {
                let old = s.page(linear).to_vec();
                s.m.state.gpr[0] = linear;
                assert_eq!(s.run(&r), ExitReason::Jump);
                assert_eq!(number(&s.bytes(linear, n as usize)), cut(value, n));
                let at = linear as usize % 4096;
                s.page(linear)[at..at + n as usize].copy_from_slice(&old[at..at + n as usize]);
                assert!(s.page(linear)[..] == old, "bytes beside it changed");
                assert_eq!(calls(), []);
            }
            for linear in [READ, WRITE + 4095, WRITE - 1, 0x1000] {
                if n == 1 && linear == WRITE + 4095 {
                    continue;
                }
                s.m.state.gpr[0] = linear;
                assert_eq!(s.run(&r), ExitReason::Jump);
                let access = TlbAccess {
                    bytes: n as u8,
                    ..TlbAccess::default()
                };
                let sent = if n == 16 { 0 } else { cut(value, n) as u64 };
                assert_eq!(calls(), [("store", access, linear, sent, 0)]);
                if n == 16 {
                    assert_eq!(s.m.state.helper_v[0], value);
                }
            }
        }
    });
}

#[test]
fn atomics_hit_only_aligned() {
    each(|s| {
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            let n = ty.bytes();
            let rmw = region(1, |b| {
                let (at, v) = (b.getreg(Reg::Rax), b.getreg(Reg::Rcx));
                let v = if ty == Type::I64 { v } else { b.trunc(ty, v) };
                let old = b.rmw(RmwOp::Add, at, v);
                keep(b, old, ty);
                b.exit_jump(4);
            });
            s.m.state.gpr[1] = 5;
            s.m.state.gpr[0] = BOTH + 64;
            let old = number(&s.bytes(BOTH + 64, n as usize));
            assert_eq!(s.run(&rmw), ExitReason::Jump);
            assert_eq!(s.kept(ty), old);
            assert_eq!(number(&s.bytes(BOTH + 64, n as usize)), cut(old + 5, n));
            assert_eq!(calls(), []);
            let access = TlbAccess {
                bytes: n as u8,
                op: RmwOp::Add as u8,
                update: false,
            };
            for linear in [BOTH + 65, READ + 64] {
                if n == 1 && linear == BOTH + 65 {
                    continue;
                }
                s.m.state.gpr[0] = linear;
                assert_eq!(s.run(&rmw), ExitReason::Jump);
                assert_eq!(calls(), [("rmw", access, linear, 5, 0)]);
                assert_eq!(s.kept(ty), cut(answer(linear).into(), n));
            }
            let cas = region(1, |b| {
                let regs = [Reg::Rax, Reg::Rcx, Reg::Rdx].map(|r| b.getreg(r));
                let [at, old, new] = regs;
                let [old, new] = [old, new].map(|v| match ty {
                    Type::I64 => v,
                    _ => b.trunc(ty, v),
                });
                let was = b.cas(at, old, new);
                keep(b, was, ty);
                b.exit_jump(4);
            });
            let there = number(&s.bytes(WRITE + 8, n as usize));
            for (expected, new) in [(there as u64 ^ 1, 7), (there as u64, 9)] {
                (s.m.state.gpr[0], s.m.state.gpr[1], s.m.state.gpr[2]) = (WRITE + 8, expected, new);
                assert_eq!(s.run(&cas), ExitReason::Jump);
                assert_eq!(s.kept(ty), there);
            }
            assert_eq!(number(&s.bytes(WRITE + 8, n as usize)), 9);
            s.page(WRITE)[8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
            s.m.state.gpr[0] = WRITE + 4095;
            if n > 1 {
                assert_eq!(s.run(&cas), ExitReason::Jump);
                assert_eq!(calls()[0].0, "cas");
            }
        }
        let cas = region(1, |b| {
            let at = b.getreg(Reg::Rax);
            let (old, new) = (b.getreg(Reg::Xmm1), b.getreg(Reg::Xmm2));
            let was = b.cas(at, old, new);
            keep(b, was, Type::V128);
            b.exit_jump(4);
        });
        let there = number(&s.bytes(BOTH + 16, 16));
        (s.m.state.gpr[0], s.m.state.xmm[1], s.m.state.xmm[2]) = (BOTH + 16, there, 77);
        assert_eq!(s.run(&cas), ExitReason::Jump);
        assert_eq!(s.kept(Type::V128), there);
        assert_eq!(number(&s.bytes(BOTH + 16, 16)), 77);
        assert_eq!(calls(), []);
        s.m.state.gpr[0] = BOTH + 24;
        assert_eq!(s.run(&cas), ExitReason::Jump);
        assert_eq!(calls().len(), 1);
        assert_eq!(s.m.state.helper_v[1], 77);
    });
}

#[test]
fn constant_addresses_probe_one_entry() {
    each(|s| {
        for (linear, asks) in [(READ + 40, 0), (READ + 4093, 1), (0x5000, 1)] {
            let r = region(1, |b| {
                let at = b.iconst(Type::I64, linear);
                let v = b.load(Type::I32, at, AccessKind::Data);
                keep(b, v, Type::I32);
                b.exit_jump(4);
            });
            assert_eq!(s.run(&r), ExitReason::Jump);
            assert_eq!(calls().len(), asks);
            let wanted = match asks {
                0 => number(&s.bytes(linear, 4)),
                _ => cut(answer(linear).into(), 4),
            };
            assert_eq!(s.kept(Type::I32), wanted);
        }
    });
}

#[test]
fn refused_accesses_leave_before_their_instruction() {
    each(|s| {
        for ty in TYPES {
            for r in [loading(ty, AccessKind::Data), storing(ty)] {
                s.m.state.gpr[0] = REFUSED + 8;
                s.m.state.gpr[3] = 0x55;
                s.m.state.xmm[0] = 0x66;
                assert_eq!(s.run(&r), ExitReason::Memory);
                assert_eq!(calls().len(), 1);
                let state = &s.m.state;
                assert_eq!((state.rip, state.fuel), (PC + 4, 999));
                assert_eq!((state.gpr[3], state.xmm[0]), (0x55, 0x66));
                assert_eq!((state.fault_addr, state.exit_reason), (REFUSED + 8, 0));
            }
        }
    });
}

#[test]
fn an_entry_that_goes_away_is_not_used_again() {
    each(|s| {
        let r = region(1, |b| {
            let at = b.getreg(Reg::Rax);
            let v = b.load(Type::I64, at, AccessKind::Data);
            b.setreg(Reg::Rbx, v);
            b.exit_jump(4);
        });
        s.m.state.gpr[0] = READ + 8;
        let (code, _) = s.m.publish(&r);
        s.m.enter(code);
        assert_eq!(calls(), []);
        let index = (READ / 4096) as usize % TLB_ENTRIES;
        s.tlb[index] = TlbEntry::empty(index);
        s.m.enter(code);
        assert_eq!(calls().len(), 1);
    });
}

/// Instructions of a hit, at most: what the issue of a soft TLB is judged by.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_hit_is_at_most_ten_host_instructions() {
    use iced_x86::{Decoder, DecoderOptions, FlowControl};

    /// Instructions from the entry to the end, every branch to a cold block not taken.
    fn hot_path(compiled: &CompiledRegion) -> Vec<String> {
        let code = &compiled.code;
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut path = Vec::new();
        loop {
            let insn = decoder.decode();
            path.push(insn.to_string());
            match insn.flow_control() {
                FlowControl::Next | FlowControl::ConditionalBranch => {}
                FlowControl::UnconditionalBranch => {
                    let to = insn.near_branch_target();
                    if u64::from(compiled.links[0].offset) == insn.next_ip() - 4 {
                        return path;
                    }
                    decoder.set_position(to as usize).unwrap();
                    decoder.set_ip(to);
                }
                other => panic!("{other:?} in {path:#?}"),
            }
        }
    }

    for opt in [OptLevel::None, OptLevel::Speed] {
        let mut s = Soft::new(Options {
            opt,
            ..Options::default()
        });
        let mut count = |body: &dyn Fn(&mut Builder<'_>)| {
            let r = region(1, |b| {
                body(b);
                b.exit_jump(4);
            });
            hot_path(&s.m.compile(&r))
        };
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64, Type::V128] {
            let (from, to) = match ty {
                Type::V128 => (Reg::Xmm0, Reg::Xmm1),
                _ => (Reg::Rcx, Reg::Rbx),
            };
            let narrow = |b: &mut Builder<'_>, v| match ty {
                Type::I64 | Type::V128 => v,
                _ => b.trunc(ty, v),
            };
            let widen = |b: &mut Builder<'_>, v| match ty {
                Type::I64 | Type::V128 => v,
                _ => b.zext(Type::I64, v),
            };
            // The same without the access.
            let bare = count(&|b| {
                let at = b.getreg(Reg::Rax);
                b.setreg(Reg::Rdx, at);
            });
            let load = count(&|b| {
                let at = b.getreg(Reg::Rax);
                b.setreg(Reg::Rdx, at);
                let v = b.load(ty, at, AccessKind::Data);
                let v = widen(b, v);
                b.setreg(to, v);
            });
            // The load, and one instruction for the result.
            let spent = load.len() - bare.len() - 1;
            assert!(spent <= 10, "{ty} {opt:?}: {spent}\n{load:#?}\n{bare:#?}");
            let bare = count(&|b| {
                let (at, v) = (b.getreg(Reg::Rax), b.getreg(from));
                b.setreg(Reg::Rdx, at);
                b.setreg(to, v);
            });
            let store = count(&|b| {
                let (at, v) = (b.getreg(Reg::Rax), b.getreg(from));
                b.setreg(Reg::Rdx, at);
                b.setreg(to, v);
                let v = narrow(b, v);
                b.store(at, v, AccessKind::Data);
            });
            let spent = store.len() - bare.len();
            assert!(spent <= 10, "{ty} {opt:?}: {spent}\n{store:#?}\n{bare:#?}");
        }
    }
}
