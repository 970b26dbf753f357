//! Random valid regions: several blocks with loops and joins, integer and some vector ops, guest
//! registers of every class, flags of every kind, memory, traps and helpers.

use super::Rng;
use metaphrase_ir::{
    AccessKind, Block, Builder, CodeSize, Cond, FlagKind, GuestInsn, Helper, IntCc, Op, Reg,
    Region, RmwOp, Shape, Type, Value,
};

/// Few registers, so that reads meet writes.
const REGS: [Reg; 9] = [
    Reg::Rax,
    Reg::Rcx,
    Reg::Rsp,
    Reg::R8,
    Reg::FsBase,
    Reg::Ds,
    Reg::Df,
    Reg::Mxcsr,
    Reg::Xmm1,
];
const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const HELPERS: [Helper; 7] = [
    Helper::Pdep,
    Helper::Cpuid,
    Helper::RepString,
    Helper::X87,
    Helper::Fxsave,
    Helper::Ldmxcsr,
    Helper::LoadSegment,
];
const BINARY: [Op; 14] = [
    Op::Add,
    Op::Sub,
    Op::Mul,
    Op::UMulHi,
    Op::SMulHi,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Shl,
    Op::LShr,
    Op::AShr,
    Op::RotL,
    Op::RotR,
    Op::Add,
];
const UNARY: [Op; 6] = [Op::Neg, Op::Not, Op::Bswap, Op::Clz, Op::Ctz, Op::Popcnt];

struct Gen<'a, 'r> {
    rng: &'a mut Rng,
    b: Builder<'r>,
    /// Values that may be used here: the entry block's and this block's.
    values: Vec<Value>,
}

/// A random region of up to six blocks of up to `size` steps.
pub fn region(rng: &mut Rng, size: usize) -> Region {
    let mut region = Region::new(0x40_1000, rng.pick(&[CodeSize::Code32, CodeSize::Code64]));
    for n in 0..4 {
        region.guest.push(GuestInsn {
            offset: 4 * n,
            len: 4,
            fuel_left: 4 - n as u16,
        });
    }
    let blocks = if rng.chance(3) { 1 } else { 2 + rng.below(5) };
    let mut params: Vec<Vec<Type>> = vec![Vec::new()];
    let mut builder = Builder::new(&mut region);
    for _ in 1..blocks {
        let b = builder.new_block();
        let count = if rng.chance(2) { 0 } else { rng.below(3) };
        let types: Vec<Type> = (0..count).map(|_| rng.pick(&INTS)).collect();
        for &ty in &types {
            builder.param(b, ty);
        }
        params.push(types);
    }
    let mut g = Gen {
        rng,
        b: builder,
        values: Vec::new(),
    };
    let mut shared = 0;
    for n in 0..blocks {
        let block = Block(n as u32);
        g.b.switch_to(block);
        g.values.truncate(shared);
        let own = g.b.region.blocks[n].params.clone();
        g.values.extend(own);
        g.b.set_insn(0);
        g.b.fuel(4);
        for step in 0..1 + g.rng.below(size) {
            g.b.set_insn((step * 4 / size).min(3) as u16);
            g.step();
        }
        g.terminator(&params);
        if n == 0 {
            shared = g.values.len();
        }
    }
    region
}

impl Gen<'_, '_> {
    /// A value of that type: an old one, or a constant.
    fn value(&mut self, ty: Type) -> Value {
        let of_type: Vec<Value> = self
            .values
            .iter()
            .copied()
            .filter(|&v| self.b.ty(v) == ty)
            .collect();
        if of_type.is_empty() || self.rng.chance(5) {
            let n = self.rng.number();
            return match ty {
                Type::V128 => self.b.vconst(u128::from(n) << 32 | 7),
                _ => self.b.iconst(ty, n),
            };
        }
        // Recent ones more often, so that chains get long.
        let last = of_type.len();
        match self.rng.chance(2) {
            true => of_type[last - 1 - self.rng.below(last.min(3))],
            false => self.rng.pick(&of_type),
        }
    }

    /// A condition, more often than not 0 or 1.
    fn condition(&mut self) -> Value {
        if self.rng.chance(4) {
            return self.value(Type::I8);
        }
        if self.rng.chance(2) {
            let cond = self.rng.pick(&Cond::ALL);
            return self.b.getcond(cond);
        }
        let ty = self.rng.pick(&INTS);
        let cc = self.rng.pick(IntCc::ALL);
        let (a, b) = (self.value(ty), self.value(ty));
        self.b.icmp(cc, a, b)
    }

    fn step(&mut self) {
        let ty = self.rng.pick(&INTS);
        let made = match self.rng.below(24) {
            0..=3 => {
                let r = self.rng.pick(&REGS);
                self.b.getreg(r)
            }
            4..=7 => {
                let r = self.rng.pick(&REGS);
                let v = self.value(r.ty());
                return self.b.setreg(r, v);
            }
            8 | 9 => {
                let op = self.rng.pick(&BINARY);
                let (a, b) = (self.value(ty), self.value(ty));
                self.b.ins(op, ty, &[a, b], 0, 0)
            }
            10 => {
                let op = self.rng.pick(&UNARY);
                let a = self.value(ty);
                self.b.ins(op, ty, &[a], 0, 0)
            }
            11 => self.division(ty),
            12 | 13 => self.width(ty),
            14 => {
                let c = self.condition();
                let ty = self.rng.pick(&[ty, Type::V128]);
                let (a, b) = (self.value(ty), self.value(ty));
                self.b.select(c, a, b)
            }
            15 | 16 => return self.setflags(ty),
            17 => self.condition(),
            18 => {
                let image = self.b.getflags();
                if self.rng.chance(4) {
                    image
                } else {
                    // One flag, or some.
                    let mask = match self.rng.chance(3) {
                        true => self.rng.number(),
                        false => 1 << self.rng.pick(&[0, 2, 4, 6, 7, 11]),
                    };
                    let mask = self.b.iconst(Type::I64, mask);
                    self.b.and(image, mask)
                }
            }
            19 => self.memory(ty),
            20 if self.rng.chance(2) => {
                let c = self.condition();
                return self.b.trapif(c, 6);
            }
            20 => self.call(),
            21 => self.vector(),
            22 => {
                let offset = self.rng.below(16) as i64;
                self.b.pc(offset)
            }
            _ => {
                let n = self.rng.number();
                self.b.iconst(ty, n)
            }
        };
        self.values.push(made);
    }

    fn division(&mut self, ty: Type) -> Value {
        // Divisors that never break the ops' requirements.
        let (a, b) = (self.value(ty), self.value(ty));
        let odd = self.b.iconst(ty, 1);
        let three = self.b.iconst(ty, 3);
        match self.rng.below(6) {
            0 => {
                let b = self.b.or(b, odd);
                self.b.udiv(a, b)
            }
            1 => {
                let b = self.b.or(b, odd);
                self.b.urem(a, b)
            }
            2 => self.b.sdiv(a, three),
            3 => self.b.srem(a, three),
            4 => {
                let two = self.b.iconst(ty, 4);
                self.b.udiv(a, two)
            }
            _ => {
                let two = self.b.iconst(ty, 8);
                self.b.urem(a, two)
            }
        }
    }

    fn width(&mut self, ty: Type) -> Value {
        let from = self.rng.pick(&INTS);
        let offset = |rng: &mut Rng| match rng.below(3) {
            0 => 0,
            1 if ty == Type::I8 => 8,
            _ => rng.below(65 - ty.bits() as usize) as u32,
        };
        match self.rng.below(4) {
            0 => {
                let (a, o) = (self.value(Type::I64), offset(self.rng));
                self.b.ext(ty, a, o)
            }
            1 => {
                let (a, b, o) = (self.value(Type::I64), self.value(ty), offset(self.rng));
                self.b.insert(a, b, o)
            }
            _ if from < ty => {
                let a = self.value(from);
                match self.rng.chance(2) {
                    true => self.b.zext(ty, a),
                    false => self.b.sext(ty, a),
                }
            }
            _ if from > ty => {
                let a = self.value(from);
                self.b.trunc(ty, a)
            }
            _ => {
                let a = self.value(ty);
                self.b.ins(Op::Bitcast, ty, &[a], 0, 0)
            }
        }
    }

    fn setflags(&mut self, ty: Type) {
        let kind = self.rng.pick(FlagKind::ALL);
        let ty = if kind == FlagKind::Raw { Type::I64 } else { ty };
        let args: Vec<Value> = (0..kind.arity()).map(|_| self.value(ty)).collect();
        self.b.setflags(kind, &args);
    }

    fn memory(&mut self, ty: Type) -> Value {
        let addr = self.value(Type::I64);
        match self.rng.below(3) {
            0 => {
                let v = self.value(ty);
                self.b.store(addr, v, AccessKind::Data);
                v
            }
            1 => {
                let (op, v) = (self.rng.pick(RmwOp::ALL), self.value(ty));
                self.b.rmw(op, addr, v)
            }
            _ => self.b.load(ty, addr, AccessKind::Stack),
        }
    }

    fn call(&mut self) -> Value {
        let helper = self.rng.pick(&HELPERS);
        let args: Vec<Value> = helper.args().iter().map(|&ty| self.value(ty)).collect();
        self.b.call(helper, 3, &args)
    }

    fn vector(&mut self) -> Value {
        let (a, b) = (self.value(Type::V128), self.value(Type::V128));
        let shape = self
            .rng
            .pick(&[Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2]);
        let lane = self.rng.below(shape.lanes() as usize) as u32;
        match self.rng.below(8) {
            0 => self.b.vxor(a, b),
            1 => self.b.vxor(a, a),
            2 => self.b.vandnot(a, b),
            3 => self.b.vsub(shape, a, b),
            4 => self.b.vadd(shape, a, b),
            5 => self.b.vget(shape, a, lane),
            6 => {
                let x = self.value(shape.lane());
                self.b.vset(shape, a, lane, x)
            }
            _ => {
                let x = self.value(Type::I64);
                self.b.vfromint(x)
            }
        }
    }

    /// A target that is not the entry, with arguments.
    fn target(&mut self, params: &[Vec<Type>]) -> (Block, Vec<Value>) {
        let n = 1 + self.rng.below(params.len() - 1);
        let args = params[n].iter().map(|&ty| self.value(ty)).collect();
        (Block(n as u32), args)
    }

    fn terminator(&mut self, params: &[Vec<Type>]) {
        let inside = params.len() > 1 && !self.rng.chance(4);
        match self.rng.below(3) {
            0 if inside => {
                let (to, args) = self.target(params);
                self.b.br(to, &args);
            }
            _ if inside => {
                let c = self.condition();
                let (then, other) = (self.target(params), self.target(params));
                self.b.brif(c, (then.0, &then.1), (other.0, &other.1));
            }
            0 => self.b.exit_jump(-0x40),
            1 => {
                let c = self.condition();
                let taken = self.rng.pick(&[0x20, -0x20, 1 << 40]);
                self.b.exit_jumpif(c, taken, 0x10);
            }
            _ => {
                let to = self.value(Type::I64);
                self.b.ins(Op::IJump, Type::I64, &[to], 0, 0);
            }
        }
    }
}
