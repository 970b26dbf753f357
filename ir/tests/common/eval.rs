//! A literal evaluator: every op as its row in the table says, nothing clever. It is the judge of
//! what passes must keep, so it shares no code with them.
//!
//! Helpers are modelled by their declared effects: what they read goes into a hash, what they
//! write comes out of it. Floats are left out.

use metaphrase_ir::flags::evaluate;
use metaphrase_ir::{
    CcOp, Cond, Effect, Effects, FlagKind, Helper, IntCc, Op, Reg, RegClass, Region, RmwOp, Shape,
    Type, Value,
};
use std::collections::BTreeMap;

/// Everything the guest could notice at one point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub what: String,
    pub regs: Vec<u128>,
    pub flags: u64,
}

impl Event {
    /// The fuel that was left.
    pub fn fuel(&self) -> u128 {
        // The registers that events leave out come behind it.
        self.regs[Reg::Fuel as usize]
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub regs: Vec<u128>,
    pub memory: BTreeMap<u64, u8>,
    pub events: Vec<Event>,
}

/// A state map with its values.
type Map = Vec<(Reg, u128)>;

fn with_map(regs: &[u128], map: &Map) -> Vec<u128> {
    let mut regs = regs.to_vec();
    for &(r, x) in map {
        regs[r as usize] = x;
    }
    regs
}

/// Why the evaluation stopped.
struct Stop;

impl Machine {
    pub fn new(seed: u64) -> Machine {
        let regs = Reg::ALL.iter().map(|&r| {
            let n = u128::from(hash(&[seed, r as u64]));
            // Some registers hold small or equal numbers, so that comparisons go both ways.
            let n = match n % 4 {
                0 => n % 3,
                1 => 0x8000_0000 - (n & 1),
                _ => n << 64 | u128::from(hash(&[n as u64])),
            };
            cut(r.ty(), n)
        });
        let mut m = Machine {
            regs: regs.collect(),
            memory: BTreeMap::new(),
            events: Vec::new(),
        };
        m.regs[Reg::Fuel as usize] = 60;
        m.set_flags(FlagKind::Raw, Type::I64, &[hash(&[seed]).into()]);
        m
    }

    fn set_flags(&mut self, kind: FlagKind, ty: Type, operands: &[u128]) {
        self.regs[Reg::CcOp as usize] = CcOp::new(kind, ty).0.into();
        for (r, &x) in [Reg::CcA, Reg::CcB, Reg::CcC].into_iter().zip(operands) {
            self.regs[r as usize] = x;
        }
    }

    fn flags(&self) -> u64 {
        let part = |r: Reg| self.regs[r as usize] as u64;
        let op = CcOp(part(Reg::CcOp) as u32);
        evaluate(op, part(Reg::CcA), part(Reg::CcB), part(Reg::CcC))
    }

    /// What is there to be seen at an access with a state map.
    fn access(&mut self, map: &Map, what: String) {
        let mapped = with_map(&self.regs, map);
        let now = std::mem::replace(&mut self.regs, mapped);
        self.event(what);
        self.regs = now;
    }

    fn event(&mut self, what: String) {
        // The record's form does not matter, but what it says; nor do our own counters.
        let seen = Reg::ALL
            .iter()
            .filter(|r| !matches!(r.class(), RegClass::Flags | RegClass::Counter));
        self.events.push(Event {
            what,
            regs: seen.map(|&r| self.regs[r as usize]).collect(),
            flags: self.flags(),
        });
    }

    /// Addresses in one page of eight fault.
    fn check(&mut self, insn: u16, addr: u64, size: u32, map: &Map) -> Result<(), Stop> {
        for n in 0..u64::from(size) {
            let at = addr.wrapping_add(n);
            if at >> 12 & 7 == 3 {
                self.regs = with_map(&self.regs, map);
                self.event(format!("fault at {at:#x} of @{insn}"));
                return Err(Stop);
            }
        }
        Ok(())
    }

    fn read(&self, addr: u64, size: u32) -> u128 {
        let byte = |n: u32| {
            let at = addr.wrapping_add(u64::from(n));
            let byte = self.memory.get(&at).copied();
            u128::from(byte.unwrap_or(hash(&[at]) as u8)) << (8 * n)
        };
        (0..size).map(byte).sum()
    }

    fn write(&mut self, addr: u64, size: u32, x: u128) {
        for n in 0..size {
            let at = addr.wrapping_add(u64::from(n));
            self.memory.insert(at, (x >> (8 * n)) as u8);
        }
    }

    /// Runs until the region is left; the events tell what happened.
    pub fn run(&mut self, region: &Region) {
        let mut values = vec![0u128; region.insts.len()];
        let mut block = 0usize;
        'blocks: loop {
            for &v in &region.blocks[block].insts {
                let inst = *region.inst(v);
                if matches!(inst.op, Op::Br | Op::BrIf) {
                    let args = region.args(v);
                    let side = usize::from(inst.op == Op::BrIf && values[args[0].0 as usize] == 0);
                    let (to, args) = region.successors(v).nth(side).expect("a target");
                    let given: Vec<u128> = args.iter().map(|a| values[a.0 as usize]).collect();
                    block = to.0 as usize;
                    for (p, x) in region.blocks[block].params.iter().zip(given) {
                        values[p.0 as usize] = x;
                    }
                    continue 'blocks;
                }
                match self.step(region, v, &values) {
                    Ok(x) => {
                        values[v.0 as usize] = region.result_type(v).map_or(0, |ty| cut(ty, x));
                    }
                    Err(Stop) => return,
                }
            }
            unreachable!("a block without terminator");
        }
    }

    fn step(&mut self, region: &Region, v: Value, values: &[u128]) -> Result<u128, Stop> {
        let inst = *region.inst(v);
        let args: Vec<u128> = region
            .args(v)
            .iter()
            .map(|a| values[a.0 as usize])
            .collect();
        let map: Map = region
            .state_map(v)
            .map(|(r, x)| (r, values[x.0 as usize]))
            .collect();
        let (ty, imm) = (inst.ty, inst.imm);
        let size = ty.bytes();
        let at = args.first().copied().unwrap_or(0) as u64;
        Ok(match inst.op {
            Op::GetReg => self.regs[imm as usize],
            Op::SetReg => {
                self.regs[imm as usize] = args[0];
                0
            }
            Op::SetFlags => {
                self.set_flags(FlagKind::ALL[imm as usize], ty, &args);
                0
            }
            Op::GetCond => Cond::ALL[imm as usize].holds(self.flags()).into(),
            Op::GetFlags => self.flags().into(),
            Op::Load => {
                self.check(inst.insn, at, size, &map)?;
                self.access(&map, format!("load {at:#x} of @{}", inst.insn));
                self.read(at, size)
            }
            Op::Store => {
                self.check(inst.insn, at, size, &map)?;
                self.access(
                    &map,
                    format!("store {at:#x} {:#x} of @{}", args[1], inst.insn),
                );
                self.write(at, size, args[1]);
                0
            }
            Op::Rmw => {
                self.check(inst.insn, at, size, &map)?;
                self.access(&map, format!("rmw {at:#x} {:#x}", args[1]));
                let old = self.read(at, size);
                let new = match RmwOp::ALL[imm as usize] {
                    RmwOp::Add => old.wrapping_add(args[1]),
                    RmwOp::Sub => old.wrapping_sub(args[1]),
                    RmwOp::And => old & args[1],
                    RmwOp::Or => old | args[1],
                    RmwOp::Xor => old ^ args[1],
                    RmwOp::Xchg => args[1],
                };
                self.write(at, size, new);
                old
            }
            Op::Fuel => {
                let fuel = &mut self.regs[Reg::Fuel as usize];
                if (*fuel as i64) < imm as i64 {
                    self.event(format!("out of fuel at @{}", inst.insn));
                    return Err(Stop);
                }
                *fuel -= u128::from(imm);
                0
            }
            Op::Need => {
                if (self.regs[Reg::Fuel as usize] as i64) < imm as i64 {
                    self.event(format!("out of fuel at @{}", inst.insn));
                    return Err(Stop);
                }
                0
            }
            Op::Spend => {
                let fuel = &mut self.regs[Reg::Fuel as usize];
                *fuel = u128::from((*fuel as u64).wrapping_sub(imm));
                0
            }
            Op::OutOfFuel => {
                self.event(format!("out of fuel at @{}", inst.insn));
                return Err(Stop);
            }
            Op::TrapIf => {
                if args[0] != 0 {
                    self.event(format!("trap {imm} of @{}", inst.insn));
                    return Err(Stop);
                }
                0
            }
            Op::Raise => {
                self.event(format!("trap {imm} of @{}", inst.insn));
                return Err(Stop);
            }
            Op::Call => self.call(Helper::from_imm(imm), inst.aux, &args)?,
            Op::JumpIf => {
                let fall = i64::from(inst.aux as i32);
                let to = if args[0] != 0 { imm as i64 } else { fall };
                self.event(format!("jump {to}"));
                return Err(Stop);
            }
            Op::Jump => {
                self.event(format!("jump {}", imm as i64));
                return Err(Stop);
            }
            op if op.info().effect == Effect::Exit => {
                self.event(format!("{op} {args:x?} {imm:#x} {:#x}", inst.aux));
                return Err(Stop);
            }
            _ => pure(region, v, &args),
        })
    }

    fn call(&mut self, helper: Helper, descriptor: u32, args: &[u128]) -> Result<u128, Stop> {
        let e = helper.effects();
        let mut seen = vec![helper as u64, descriptor.into()];
        seen.extend(args.iter().map(|&a| a as u64));
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for &r in Reg::ALL {
            let (read, write) = match r.class() {
                RegClass::Fuel | RegClass::Flags | RegClass::Counter => continue,
                RegClass::Gpr => (Effects::READ_GPR, Effects::WRITE_GPR),
                RegClass::Segment => (Effects::READ_SEGMENT, Effects::WRITE_SEGMENT),
                RegClass::Control => (Effects::READ_CONTROL, Effects::WRITE_CONTROL),
                RegClass::Sse => (Effects::READ_SSE, Effects::WRITE_SSE),
                RegClass::Mmx => (Effects::OPAQUE, Effects::OPAQUE),
            };
            if e.has(read) {
                reads.push(r);
            }
            // A helper writes some registers of the class.
            if e.has(write) && hash(&[helper as u64, r as u64]) & 1 == 0 {
                writes.push(r);
            }
        }
        seen.extend(reads.iter().map(|&r| self.regs[r as usize] as u64));
        if e.has(Effects::READ_FLAGS) {
            seen.push(self.flags());
        }
        let result = hash(&seen);
        if e.has(Effects::MAY_EXIT) {
            self.event(format!("{helper} {result:#x}"));
            if result.is_multiple_of(7) {
                return Err(Stop);
            }
        }
        for r in writes {
            self.regs[r as usize] = cut(r.ty(), hash(&[result, r as u64]).into());
        }
        if e.has(Effects::WRITE_FLAGS) {
            self.set_flags(FlagKind::Raw, Type::I64, &[(result >> 7).into()]);
        }
        Ok(result.into())
    }
}

/// Ops that touch nothing.
fn pure(region: &Region, v: Value, args: &[u128]) -> u128 {
    let inst = *region.inst(v);
    let ty = inst.ty;
    let arg = |n: usize| args.get(n).copied().unwrap_or(0);
    let from = |n: usize| region.ty(region.args(v)[n]);
    if ty == Type::V128 || matches!(inst.op, Op::VGet | Op::VSet | Op::VFromInt) {
        return vector(region, v, args);
    }
    let bits = ty.bits().min(64);
    let (a, b) = (arg(0) as u64, arg(1) as u64);
    let (sa, sb) = (signed(ty, a), signed(ty, b));
    let n = (b % u64::from(bits)) as u32;
    let wide = |x: i128| x as u128;
    match inst.op {
        Op::Const => inst.imm.into(),
        Op::Pc => region.pc_at(inst.imm as i64).into(),
        Op::Copy | Op::Zext | Op::Trunc | Op::Bitcast => arg(0),
        Op::Add => wide(sa + sb),
        Op::Sub => wide(sa - sb),
        Op::Mul => wide(sa.wrapping_mul(sb)),
        Op::UMulHi => (arg(0) * arg(1)) >> bits,
        Op::SMulHi => wide((sa * sb) >> bits),
        Op::UDiv => arg(0) / arg(1),
        Op::URem => arg(0) % arg(1),
        Op::SDiv => wide(sa / sb),
        Op::SRem => wide(sa % sb),
        Op::And => arg(0) & arg(1),
        Op::Or => arg(0) | arg(1),
        Op::Xor => arg(0) ^ arg(1),
        Op::Shl => arg(0) << n,
        Op::LShr => arg(0) >> n,
        Op::AShr => wide(sa >> n),
        Op::RotL => arg(0) << n | arg(0) >> (bits - n),
        Op::RotR => arg(0) >> n | arg(0) << (bits - n),
        Op::Neg => wide(-sa),
        Op::Not => !arg(0),
        Op::Bswap => {
            let bytes = (0..ty.bytes()).map(|n| (arg(0) >> (8 * n) & 0xff) << (bits - 8 - 8 * n));
            bytes.sum()
        }
        Op::Clz => (0..bits).rev().take_while(|n| a >> n & 1 == 0).count() as u128,
        Op::Ctz => (0..bits).take_while(|n| a >> n & 1 == 0).count() as u128,
        Op::Popcnt => (0..bits).filter(|n| a >> n & 1 == 1).count() as u128,
        Op::ICmp => {
            let holds = match IntCc::ALL[inst.imm as usize] {
                IntCc::Eq => a == b,
                IntCc::Ne => a != b,
                IntCc::Ult => a < b,
                IntCc::Uge => a >= b,
                IntCc::Ule => a <= b,
                IntCc::Ugt => a > b,
                IntCc::Slt => sa < sb,
                IntCc::Sge => sa >= sb,
                IntCc::Sle => sa <= sb,
                IntCc::Sgt => sa > sb,
            };
            holds.into()
        }
        Op::Select => arg(if arg(0) != 0 { 1 } else { 2 }),
        Op::Sext => wide(signed(from(0), a)),
        Op::Ext => arg(0) >> inst.imm,
        Op::Ins => {
            let hole = u128::from(ty.mask()) << inst.imm;
            (arg(0) & !hole) | arg(1) << inst.imm
        }
        op => unreachable!("the evaluator does not know {op}"),
    }
}

fn vector(region: &Region, v: Value, args: &[u128]) -> u128 {
    let inst = *region.inst(v);
    let (a, b) = (args.first().copied(), args.get(1).copied());
    let (a, b) = (a.unwrap_or(0), b.unwrap_or(0));
    let lane = |shape: Shape, x: u128, n: u32| cut(shape.lane(), x >> (shape.lane().bits() * n));
    match inst.op {
        Op::VConst => region.vconsts[inst.imm as usize],
        Op::Copy | Op::VFromInt => a,
        Op::VAnd => a & b,
        Op::VOr => a | b,
        Op::VXor => a ^ b,
        Op::VAndNot => !a & b,
        Op::Select => args[if a != 0 { 1 } else { 2 }],
        Op::VAdd | Op::VSub => {
            let shape = Shape::ALL[inst.imm as usize];
            let one = |n: u32| {
                let (x, y) = (lane(shape, a, n), lane(shape, b, n));
                let r = match inst.op {
                    Op::VAdd => x.wrapping_add(y),
                    _ => x.wrapping_sub(y),
                };
                cut(shape.lane(), r) << (shape.lane().bits() * n)
            };
            (0..shape.lanes()).map(one).sum()
        }
        Op::VGet => lane(Shape::ALL[inst.imm as usize], a, inst.aux),
        Op::VSet => {
            let bits = Shape::ALL[inst.imm as usize].lane().bits();
            let hole = u128::from(inst.ty.mask()) << (bits * inst.aux);
            (a & !hole) | b << (bits * inst.aux)
        }
        op => unreachable!("the evaluator does not know {op}"),
    }
}

fn cut(ty: Type, x: u128) -> u128 {
    match ty {
        Type::V128 => x,
        ty => x & u128::from(ty.mask()),
    }
}

fn signed(ty: Type, x: u64) -> i128 {
    let shift = 64 - ty.bits().min(64);
    i128::from(((x << shift) as i64) >> shift)
}

fn hash(of: &[u64]) -> u64 {
    let mix = |h: u64, x: &u64| {
        let h = (h ^ x).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^ h >> 29
    };
    of.iter().fold(0x1234_5678_9abc_def1, mix)
}
