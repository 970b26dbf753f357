//! Random regions, run by the interpreter and by the literal evaluator.

use super::model::evaluate_region;
use super::*;
use metaphrase_ir::{AccessKind, Block, Cond, FlagKind, IntCc, Op, Reg, RmwOp, Shape, Type, Value};

/// A small generator of pseudo-random numbers (xorshift64*).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    /// A value that is often an edge case.
    pub fn edge(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next() & 7,
            1 => 0u64.wrapping_sub(self.next() & 3),
            2 => (1 << self.below(64)) - (self.next() & 1),
            _ => self.next(),
        }
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const GUEST_INSNS: u16 = 12;

struct Gen<'r> {
    b: Builder<'r>,
    rng: Rng,
    /// Values that may be used in the current block.
    pool: Vec<Value>,
}

impl Gen<'_> {
    fn value(&mut self, ty: Type) -> Value {
        let fits: Vec<Value> = self
            .pool
            .iter()
            .copied()
            .filter(|&v| self.b.ty(v) == ty)
            .collect();
        if !fits.is_empty() && self.rng.below(8) > 0 {
            // Young values more often.
            let n = self.rng.below(fits.len()).max(self.rng.below(fits.len()));
            return fits[n];
        }
        if ty == Type::V128 {
            let bits = u128::from(self.rng.next()) << 64 | u128::from(self.rng.edge());
            return self.b.vconst(bits);
        }
        let bits = self.rng.edge();
        self.b.iconst(ty, bits)
    }

    /// An address in the two data pages, or now and then outside.
    fn address(&mut self) -> Value {
        let base = DATA + (self.rng.next() & 0x7ff);
        let base = match self.rng.below(40) {
            0 | 2 => DATA + 0x1ff8 + (self.rng.next() & 15),
            1 => CONSTANT,
            _ => base,
        };
        let base = self.b.iconst(Type::I64, base);
        let x = self.value(Type::I64);
        let mask = self.b.iconst(Type::I64, 0x78);
        let x = self.b.and(x, mask);
        match self.rng.below(5) {
            0 => base,
            1 => self.b.add(base, x),
            2 => {
                let n = self.b.iconst(Type::I64, self.rng.next() & 3);
                let x = self.b.shl(x, n);
                self.b.add(base, x)
            }
            3 => {
                let (x, base) = (self.b.trunc(Type::I32, x), self.b.trunc(Type::I32, base));
                let sum = self.b.add(x, base);
                let sum = self.b.add(sum, x);
                self.b.zext(Type::I64, sum)
            }
            _ => {
                let sum = self.b.add(x, base);
                let n = self.b.iconst(Type::I64, self.rng.next() & 7);
                let sum = self.b.sub(sum, n);
                self.b.add(sum, x)
            }
        }
    }

    /// A state map, or none.
    fn map(&mut self) -> Vec<(Reg, Value)> {
        if self.rng.below(2) == 0 {
            return Vec::new();
        }
        let mut map = Vec::new();
        for _ in 0..self.rng.below(5) {
            let reg = match self.rng.below(4) {
                0 => self.xmm(),
                1 => Reg::Fuel,
                _ => self.gpr(),
            };
            map.push((reg, self.value(reg.ty())));
        }
        map
    }

    fn gpr(&mut self) -> Reg {
        Reg::gpr(self.rng.below(5))
    }

    fn xmm(&mut self) -> Reg {
        Reg::xmm(self.rng.below(3))
    }

    fn op(&mut self) {
        let ty = self.rng.pick(&INTS);
        let v = match self.rng.below(34) {
            0..=4 => {
                let reg = self.gpr();
                self.b.getreg(reg)
            }
            5..=9 => {
                let (reg, v) = (self.gpr(), self.value(Type::I64));
                return self.b.setreg(reg, v);
            }
            10..=13 => {
                const OPS: [Op; 12] = [
                    Op::Add,
                    Op::Sub,
                    Op::Mul,
                    Op::And,
                    Op::Or,
                    Op::Xor,
                    Op::Shl,
                    Op::LShr,
                    Op::AShr,
                    Op::RotL,
                    Op::SMulHi,
                    Op::UMulHi,
                ];
                let op = self.rng.pick(&OPS);
                let (x, y) = (self.value(ty), self.value(ty));
                let r = self.b.ins(op, ty, &[x, y], 0, 0);
                if self.rng.below(2) == 0 {
                    match op {
                        Op::Add => self.b.setflags(FlagKind::Add, &[x, y]),
                        Op::Sub => self.b.setflags(FlagKind::Sub, &[x, y]),
                        _ => self.b.setflags(FlagKind::Logic, &[r]),
                    }
                }
                r
            }
            14 => {
                let op = self
                    .rng
                    .pick(&[Op::Neg, Op::Not, Op::Bswap, Op::Clz, Op::Popcnt]);
                let x = self.value(ty);
                self.b.ins(op, ty, &[x], 0, 0)
            }
            15 => {
                let (x, y) = (self.value(ty), self.value(ty));
                let cc = self.rng.pick(IntCc::ALL);
                self.b.icmp(cc, x, y)
            }
            16 => {
                let c = self.value(Type::I8);
                let (x, y) = (self.value(ty), self.value(ty));
                self.b.select(c, x, y)
            }
            17 | 18 => {
                let x = self.value(Type::I64);
                self.b.trunc(self.rng.pick(&INTS[..3]), x)
            }
            19 | 20 => {
                let from = self.rng.pick(&INTS[..3]);
                let x = self.value(from);
                self.b.zext(Type::I64, x)
            }
            21 => {
                let from = self.rng.pick(&INTS[..3]);
                let x = self.value(from);
                self.b.sext(Type::I64, x)
            }
            22 => {
                let x = self.value(Type::I64);
                let at = self.rng.below(65 - ty.bits() as usize) as u32;
                let at = if self.rng.below(2) == 0 { at & !7 } else { at };
                self.b.ext(ty, x, at)
            }
            23 => {
                let (x, y) = (self.value(Type::I64), self.value(ty));
                let at = self.rng.below(65 - ty.bits() as usize) as u32;
                let at = if self.rng.below(2) == 0 { at & !7 } else { at };
                self.b.insert(x, y, at)
            }
            24 => {
                const KINDS: [FlagKind; 4] = [
                    FlagKind::Adc,
                    FlagKind::Inc,
                    FlagKind::Result,
                    FlagKind::Sub,
                ];
                let kind = self.rng.pick(&KINDS);
                let args: Vec<Value> = (0..kind.arity()).map(|_| self.value(ty)).collect();
                return self.b.setflags(kind, &args);
            }
            25 => self.b.getcond(self.rng.pick(&Cond::ALL)),
            26 => self.b.getflags(),
            27 => {
                let (at, map) = (self.address(), self.map());
                let ty = self.rng.pick(&[ty, Type::V128]);
                let v = self.b.load(ty, at, AccessKind::Data);
                self.b.region.set_state_map(v, &map);
                v
            }
            28 => {
                let (at, map) = (self.address(), self.map());
                let of = self.rng.pick_type();
                let v = self.value(of);
                self.b.store(at, v, AccessKind::Data);
                let store = Value(self.b.region.insts.len() as u32 - 1);
                return self.b.region.set_state_map(store, &map);
            }
            29 => {
                let (at, v, map) = (self.address(), self.value(ty), self.map());
                let v = self.b.rmw(self.rng.pick(RmwOp::ALL), at, v);
                self.b.region.set_state_map(v, &map);
                v
            }
            30 => {
                let reg = self.xmm();
                self.b.getreg(reg)
            }
            31 => {
                let (reg, v) = (self.xmm(), self.value(Type::V128));
                return self.b.setreg(reg, v);
            }
            32 => {
                let (x, y) = (self.value(Type::V128), self.value(Type::V128));
                self.b.vadd(Shape::I16x8, x, y)
            }
            _ => {
                let x = self.value(Type::V128);
                if self.rng.below(2) == 0 {
                    self.b.vget(Shape::I32x4, x, self.rng.below(4) as u32)
                } else {
                    let y = self.value(Type::I64);
                    self.b.vset(Shape::I64x2, x, self.rng.below(2) as u32, y)
                }
            }
        };
        self.pool.push(v);
    }
}

impl Rng {
    fn pick_type(&mut self) -> Type {
        self.pick(&[Type::I8, Type::I16, Type::I32, Type::I64, Type::V128])
    }
}

/// A region whose blocks go to each other at random; each takes one unit of fuel.
fn random_region(seed: u64) -> Region {
    let mut r = region(GUEST_INSNS);
    let mut g = Gen {
        b: Builder::new(&mut r),
        rng: Rng::new(seed),
        pool: Vec::new(),
    };
    let count = 1 + g.rng.below(4);
    let mut blocks: Vec<(Block, Vec<Value>)> = Vec::new();
    for _ in 0..count {
        let block = g.b.new_block();
        let n = g.rng.below(4);
        let mut params = Vec::new();
        for _ in 0..n {
            let ty = g.rng.pick_type();
            params.push(g.b.param(block, ty));
        }
        blocks.push((block, params));
    }
    let mut insn = 0;
    let mut shared = Vec::new();
    for n in 0..=count {
        if n > 0 {
            g.b.switch_to(blocks[n - 1].0);
            g.pool = shared.clone();
            g.pool.extend(&blocks[n - 1].1);
        }
        g.b.set_insn(insn);
        g.b.fuel(1);
        for _ in 0..g.rng.below(25) {
            g.op();
            if g.rng.below(4) == 0 {
                insn = (insn + 1).min(GUEST_INSNS - 1);
                g.b.set_insn(insn);
            }
        }
        if n == 0 {
            shared = g.pool.clone();
        }
        let (x, y) = (g.rng.below(count), g.rng.below(count));
        let args = |g: &mut Gen<'_>, n: usize| -> Vec<Value> {
            let types: Vec<Type> = blocks[n].1.iter().map(|&p| g.b.ty(p)).collect();
            types.into_iter().map(|ty| g.value(ty)).collect()
        };
        match g.rng.below(6) {
            0 => g.b.exit_jump(7),
            1 => {
                let c = g.value(Type::I8);
                g.b.exit_jumpif(c, -3, 9);
            }
            2 => {
                let to = args(&mut g, x);
                g.b.br(blocks[x].0, &to);
            }
            kind => {
                let c = if kind == 3 {
                    g.value(Type::I8)
                } else if kind == 4 {
                    g.b.getcond(g.rng.pick(&Cond::ALL))
                } else {
                    let (p, q) = (g.value(Type::I32), g.value(Type::I32));
                    g.b.icmp(g.rng.pick(IntCc::ALL), p, q)
                };
                let (to, other) = (args(&mut g, x), args(&mut g, y));
                g.b.brif(c, (blocks[x].0, &to), (blocks[y].0, &other));
            }
        }
    }
    r
}

fn random_guest(seed: u64) -> Guest {
    let mut rng = Rng::new(seed ^ 0xabcdef);
    let mut guest = Guest::new();
    for n in 0..6 {
        guest.state.gpr[n] = rng.edge();
    }
    for n in 0..4 {
        guest.state.xmm[n] = u128::from(rng.next()) << 64 | u128::from(rng.next());
    }
    guest.state.set_rflags(rng.next() & 0x8d5);
    guest.state.fuel = 1 + rng.below(20) as i64;
    for n in 0..1024 {
        guest.env.memory.write(DATA + n * 8, rng.edge()).unwrap();
    }
    guest
}

fn compare(seed: u64) {
    let region = random_region(seed);
    let (mut ours, mut model) = (random_guest(seed), random_guest(seed));
    let reason = evaluate_region(&region, &mut model);
    let program = Program::new(&region).unwrap();
    let exit = ours.run(&program);
    let (a, b) = (&ours.state, &model.state);
    let say = |what: &str| format!("seed {seed}: {what} differs\n{region:?}\n{program:?}");
    assert_eq!(exit.reason, reason, "{}", say("the exit"));
    assert_eq!(a.gpr, b.gpr, "{}", say("a register"));
    assert_eq!(a.xmm, b.xmm, "{}", say("an xmm register"));
    assert_eq!(a.arith_flags(), b.arith_flags(), "{}", say("a flag"));
    assert_eq!((a.rip, a.fuel), (b.rip, b.fuel), "{}", say("rip or fuel"));
    assert_eq!(
        (a.fault_addr, a.exit_info),
        (b.fault_addr, b.exit_info),
        "{}",
        say("the fault")
    );
    let page = |g: &Guest| {
        let mut bytes = vec![0; 0x2000];
        g.env.memory.read_bytes(DATA, &mut bytes).unwrap();
        bytes
    };
    assert!(page(&ours) == page(&model), "{}", say("memory"));
}

#[test]
fn random_regions_run_as_the_model_says() {
    for seed in 0..4000 {
        compare(seed);
    }
}
