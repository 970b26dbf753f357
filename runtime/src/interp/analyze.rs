//! What predecoding needs to know about a region's values: who uses them, until when, and where
//! each can live without being copied.
//!
//! Per value, one [`Place`] is decided:
//! - constants are put into their users, or made on the spot;
//! - `trunc`, byte-aligned `ext`, `bitcast`, `vget` and most `zext` are parts of another value's
//!   slot ([`Place::Part`]): slots are little-endian, operands are read at their own width, and
//!   results are written zero-extended;
//! - `getreg` is the register's own place in the guest state, if nothing writes the register
//!   before the value's last use;
//! - a value that a `setreg` stores is computed right into the register, either at its own
//!   position (nothing between may see the register) or, if the `setreg` is its only user, at the
//!   position of the `setreg`;
//! - everything else gets temporary slots (`slots.rs`).
//!
//! Address arithmetic, comparisons that a branch tests and flag definitions of the preceding op
//! are folded into their users; a value all of whose users fold it is not computed at all.
//!
//! Positions are indices into the block's instruction list. Fewer uses are seen after folding, and
//! later ones (the user's position), so `last_use` is that of the *emitted* code.

use super::fold::Test;
use metaphrase_ir::{
    Block, Effect, Effects, FlagKind, Helper, Op, Reg, RegClass, RegMask, Region, Type, Value,
};

/// Where a value lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In a temporary slot, or nowhere if nobody needs it.
    Temp,
    /// At a byte offset in another value's place.
    Part(Value, u16),
    /// In a guest register.
    Reg(Reg),
}

/// An operand of a binary op or comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    /// A value.
    Value(Value),
    /// A constant, zero-extended.
    Const(u64),
}

/// The findings; see the module's header.
pub(super) struct Analysis<'r> {
    pub region: &'r Region,
    /// Block and position that define each value.
    pub def: Vec<(u32, u32)>,
    /// Number of uses, before folding.
    pub uses: Vec<u32>,
    /// Uses by addresses that fold the value.
    folded_uses: Vec<u32>,
    /// Whether it is used in another block.
    pub escapes: Vec<bool>,
    /// Whether somebody needs its place (or its effect).
    pub needed: Vec<bool>,
    /// Position of its last use in its own block.
    pub last_use: Vec<u32>,
    /// Where it lives.
    pub place: Vec<Place>,
    /// For an op: the `setflags` that it does as well. For that `setflags`: itself.
    pub flags_of: Vec<Option<Value>>,
    /// For a `setreg`: how its value gets there.
    pub writes: Vec<Write>,
    /// Ops that a later `setreg` computes.
    pub sunk: Vec<bool>,
    /// Registers that the region writes anywhere, as bits.
    written: RegMask,
}

/// How a `setreg`'s value gets into the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// By a move.
    Move,
    /// It is there already.
    Done,
    /// By computing the value now.
    Compute(Value),
}

impl<'r> Analysis<'r> {
    pub fn new(region: &'r Region) -> Analysis<'r> {
        let n = region.insts.len();
        let mut a = Analysis {
            region,
            def: vec![(u32::MAX, 0); n],
            uses: vec![0; n],
            folded_uses: vec![0; n],
            escapes: vec![false; n],
            needed: vec![false; n],
            last_use: vec![0; n],
            place: vec![Place::Temp; n],
            flags_of: vec![None; n],
            writes: vec![Write::Move; n],
            sunk: vec![false; n],
            written: 0,
        };
        a.find_definitions();
        a.count_uses();
        for block in region.block_ids() {
            a.fuse_flags(block);
        }
        for block in region.block_ids() {
            a.walk_back(block);
        }
        for block in region.block_ids() {
            a.place_registers(block);
        }
        a
    }

    /// The value behind copies.
    pub fn root(&self, mut v: Value) -> Value {
        while self.region.inst(v).op == Op::Copy {
            v = self.region.args(v)[0];
        }
        v
    }

    /// Operand `n` of `v`, behind copies.
    pub fn arg(&self, v: Value, n: usize) -> Value {
        self.root(self.region.args(v)[n])
    }

    pub fn insts(&self, block: Block) -> &'r [Value] {
        &self.region.blocks[block.0 as usize].insts
    }

    fn find_definitions(&mut self) {
        for block in self.region.block_ids() {
            let data = &self.region.blocks[block.0 as usize];
            for &v in &data.params {
                self.def[v.0 as usize] = (block.0, 0);
            }
            for (pos, &v) in data.insts.iter().enumerate() {
                self.def[v.0 as usize] = (block.0, pos as u32);
                self.written |= self.writes(v);
            }
        }
    }

    fn count_uses(&mut self) {
        for block in self.region.block_ids() {
            for &v in self.insts(block).iter().rev() {
                for n in 0..self.region.args(v).len() {
                    let arg = self.arg(v, n);
                    self.uses[arg.0 as usize] += 1;
                    if self.def[arg.0 as usize].0 != block.0 {
                        self.mark_escape(arg);
                    }
                }
            }
        }
        for block in self.region.block_ids() {
            for &v in self.insts(block) {
                if matches!(self.region.inst(v).op, Op::Load | Op::Store) {
                    let addr = self.arg(v, 0);
                    if self.address(v, block).base != Some(addr) {
                        self.folded_uses[addr.0 as usize] += 1;
                    }
                }
            }
        }
    }

    /// Marks `v` as used in other blocks; a part keeps the value that it is a part of alive.
    fn mark_escape(&mut self, v: Value) {
        let mut v = v;
        loop {
            self.escapes[v.0 as usize] = true;
            match self.part_of(v) {
                Some((of, _)) if !self.escapes[of.0 as usize] => v = of,
                _ => return,
            }
        }
    }

    /// The bits of an integer or float constant.
    pub fn constant(&self, v: Value) -> Option<u64> {
        self.region.as_const(v)
    }

    /// The operand as a value or constant.
    pub fn operand(&self, v: Value) -> Operand {
        match self.constant(v) {
            Some(bits) => Operand::Const(bits),
            None => Operand::Value(self.root(v)),
        }
    }

    pub fn writes_flags(&self, v: Value) -> bool {
        let inst = self.region.inst(v);
        match inst.op {
            Op::SetFlags => true,
            Op::SetReg => Reg::ALL[inst.imm as usize].class() == RegClass::Flags,
            Op::Call => Helper::from_imm(inst.imm)
                .effects()
                .has(Effects::WRITE_FLAGS),
            _ => false,
        }
    }

    /// Whether `v` reads the register without naming it.
    fn reads_reg(&self, v: Value, reg: Reg) -> bool {
        let op = self.region.inst(v).op;
        reg.class() == RegClass::Flags && matches!(op, Op::GetCond | Op::GetFlags)
    }

    /// Whether somebody outside the region may look at the guest state at `v`.
    fn observes(&self, v: Value) -> bool {
        let inst = self.region.inst(v);
        match inst.op.info().effect {
            Effect::Pure | Effect::Float | Effect::ReadState | Effect::WriteState => false,
            Effect::Helper => Helper::from_imm(inst.imm).effects() != Effects::NONE,
            _ => true,
        }
    }

    /// Finds for each `setflags` the op that can do it in passing.
    fn fuse_flags(&mut self, block: Block) {
        let insts = self.insts(block);
        for (pos, &v) in insts.iter().enumerate() {
            let inst = self.region.inst(v);
            if inst.op != Op::SetFlags {
                continue;
            }
            let kind = FlagKind::ALL[inst.imm as usize];
            if !matches!(kind, FlagKind::Add | FlagKind::Sub | FlagKind::Logic) {
                continue;
            }
            for &candidate in insts[..pos].iter().rev() {
                if self.is_flags_source(candidate, v, kind) {
                    self.flags_of[candidate.0 as usize] = Some(v);
                    self.flags_of[v.0 as usize] = Some(v);
                    break;
                }
                let op = self.region.inst(candidate).op;
                if self.observes(candidate)
                    || matches!(op, Op::SetFlags | Op::GetCond | Op::GetFlags)
                {
                    break;
                }
            }
        }
    }

    /// Whether `op` computes what `setflags` describes.
    fn is_flags_source(&self, op: Value, setflags: Value, kind: FlagKind) -> bool {
        let (inst, flags) = (self.region.inst(op), self.region.inst(setflags));
        if inst.ty != flags.ty || self.flags_of[op.0 as usize].is_some() {
            return false;
        }
        let same = |n: usize| {
            let (x, y) = (self.arg(op, n), self.arg(setflags, n));
            x == y || (self.constant(x).is_some() && self.constant(x) == self.constant(y))
        };
        match (kind, inst.op) {
            (FlagKind::Add, Op::Add) | (FlagKind::Sub, Op::Sub) => same(0) && same(1),
            (FlagKind::Logic, Op::And | Op::Or | Op::Xor) => self.arg(setflags, 0) == op,
            _ => false,
        }
    }

    /// What `v` is a part of, if it needs no code of its own.
    fn part_of(&self, v: Value) -> Option<(Value, u16)> {
        let inst = self.region.inst(v);
        match inst.op {
            Op::Copy => Some((self.arg(v, 0), 0)),
            Op::Trunc | Op::Bitcast => Some((self.arg(v, 0), 0)),
            Op::Ext if inst.imm.is_multiple_of(8) && inst.imm as u32 + inst.ty.bits() <= 64 => {
                Some((self.arg(v, 0), (inst.imm / 8) as u16))
            }
            Op::Zext if self.is_clean(self.arg(v, 0)) => Some((self.arg(v, 0), 0)),
            Op::VGet => {
                let lane = inst.aux as u16 * inst.ty.bytes() as u16;
                Some((self.arg(v, 0), lane))
            }
            _ => None,
        }
        .filter(|&(of, _)| self.constant(of).is_none())
        .filter(|&(of, _)| self.region.inst(of).op != Op::VConst)
    }

    /// Whether the 64 bits at the value's place are the value zero-extended.
    pub fn is_clean(&self, v: Value) -> bool {
        let inst = self.region.inst(v);
        match inst.op {
            Op::Trunc | Op::Ext | Op::Bitcast | Op::VGet => false,
            Op::Copy | Op::Zext => match self.part_of(v) {
                Some((of, _)) => self.is_clean(of),
                None => true,
            },
            Op::GetReg => inst.ty == Type::I64,
            _ => true,
        }
    }

    fn use_at(&mut self, v: Value, pos: u32, block: Block) {
        let i = v.0 as usize;
        self.needed[i] = true;
        if self.def[i].0 == block.0 {
            self.last_use[i] = self.last_use[i].max(pos);
        }
    }

    /// Marks what is needed, from the end of the block on, and finds the last uses.
    fn walk_back(&mut self, block: Block) {
        let insts = self.insts(block);
        for (pos, &v) in insts.iter().enumerate().rev() {
            let pos = pos as u32;
            let inst = self.region.inst(v);
            let i = v.0 as usize;
            if self.sunk[i] {
                continue;
            }
            self.needed[i] |= self.escapes[i] || !self.region.is_removable(v);
            if !self.needed[i] && self.flags_of[i].is_none() {
                continue;
            }
            self.needed[i] = true;
            if let Some((of, offset)) = self.part_of(v) {
                self.place[i] = Place::Part(of, offset);
                let last = self.last_use[i].max(pos);
                self.use_at(of, last, block);
                continue;
            }
            match inst.op {
                // Done by another op.
                Op::SetFlags if self.flags_of[i].is_some() => continue,
                Op::Load | Op::Store => {
                    let address = self.address(v, block);
                    for part in [address.base, address.index].into_iter().flatten() {
                        self.use_at(part, pos, block);
                    }
                    for n in 1..self.region.args(v).len() {
                        self.use_at(self.arg(v, n), pos, block);
                    }
                    continue;
                }
                Op::BrIf | Op::JumpIf => {
                    match self.test(self.arg(v, 0), block) {
                        Test::Compare(_, _, a, b) => {
                            self.use_at(a, pos, block);
                            if let Operand::Value(b) = b {
                                self.use_at(b, pos, block);
                            }
                        }
                        Test::Flags(_) => {}
                        Test::Value(c) => self.use_at(c, pos, block),
                    }
                    for n in 1..self.region.args(v).len() {
                        self.use_at(self.arg(v, n), pos, block);
                    }
                    continue;
                }
                Op::SetReg => {
                    if let Some(op) = self.sinkable(v, block) {
                        // Its operands are read here.
                        self.writes[i] = Write::Compute(op);
                        self.place[op.0 as usize] = Place::Reg(Reg::ALL[inst.imm as usize]);
                        self.sunk[op.0 as usize] = true;
                        for n in 0..self.region.args(op).len() {
                            self.use_at(self.arg(op, n), pos, block);
                        }
                        continue;
                    }
                }
                _ => {}
            }
            for n in 0..self.region.args(v).len() {
                self.use_at(self.arg(v, n), pos, block);
            }
        }
    }

    /// The op that `setreg` alone uses and that can as well be computed there.
    fn sinkable(&self, setreg: Value, block: Block) -> Option<Value> {
        let reg = Reg::ALL[self.region.inst(setreg).imm as usize];
        let op = self.stored_op(setreg, reg)?;
        let i = op.0 as usize;
        let inst = self.region.inst(op);
        let once = |v: Value| {
            let i = v.0 as usize;
            self.uses[i] - self.folded_uses[i] == 1 && !self.needed[i] && !self.escapes[i]
        };
        let only = once(op);
        let through = self.arg(setreg, 0);
        let only_part =
            through == op || once(through) && self.part_of(through).is_some_and(|(of, _)| of == op);
        // Exception flags must be there when somebody may look.
        let unseen = || {
            let (from, to) = (
                self.def[i].1 as usize,
                self.def[setreg.0 as usize].1 as usize,
            );
            let between = self.insts(block).get(from + 1..to).unwrap_or_default();
            !between.iter().any(|&v| self.observes(v))
        };
        let pure = match inst.op.info().effect {
            Effect::Pure => true,
            Effect::Float => !inst.sets_mxcsr() || unseen(),
            _ => false,
        } && !matches!(inst.op, Op::Param | Op::Const | Op::VConst);
        (self.def[i].0 == block.0 && only && only_part && pure && self.flags_of[i].is_none())
            .then_some(op)
    }

    /// The op whose whole result `setreg` stores into a register that can be written as a whole.
    fn stored_op(&self, setreg: Value, reg: Reg) -> Option<Value> {
        if !matches!(reg.ty(), Type::I64 | Type::V128) {
            return None;
        }
        let mut v = self.arg(setreg, 0);
        while let Some((of, offset)) = self.part_of(v) {
            if offset != 0 || !matches!(self.region.inst(v).op, Op::Zext | Op::Copy) {
                return None;
            }
            v = of;
        }
        (self.constant(v).is_none()).then_some(v)
    }

    /// Decides which values live in guest registers.
    fn place_registers(&mut self, block: Block) {
        let insts = self.insts(block);
        // When each register's place holds what: (from, to) positions of values that live in it.
        let mut residents: Vec<(Reg, u32, u32)> = Vec::new();
        let next_write = self.next_writes(insts);
        let mut getregs = Vec::new();
        for (pos, &v) in insts.iter().enumerate() {
            let inst = self.region.inst(v);
            let i = v.0 as usize;
            if inst.op != Op::GetReg || !self.needed[i] {
                continue;
            }
            let reg = Reg::ALL[inst.imm as usize];
            let in_place = if self.escapes[i] {
                self.written & bit(reg) == 0
            } else {
                self.last_use[i] <= next_write[pos]
            };
            let until = if in_place {
                self.last_use[i]
            } else {
                pos as u32
            };
            residents.push((reg, pos as u32, until.max(pos as u32)));
            if in_place {
                getregs.push((v, reg));
            }
        }
        let mut stored = Vec::new();
        for (pos, &v) in insts.iter().enumerate() {
            let inst = self.region.inst(v);
            if inst.op != Op::SetReg || self.writes[v.0 as usize] != Write::Move {
                continue;
            }
            let reg = Reg::ALL[inst.imm as usize];
            let Some(op) = self.stored_op(v, reg) else {
                continue;
            };
            let i = op.0 as usize;
            let (def_block, at) = self.def[i];
            let fresh = !stored.iter().any(|&(o, _, _)| o == op)
                && self.place[i] == Place::Temp
                && self.makes_result(op);
            if def_block != block.0 || !fresh || self.escapes[i] {
                continue;
            }
            let between = &insts[at as usize + 1..pos];
            let seen = between
                .iter()
                .any(|&o| self.observes(o) || self.reads_reg(o, reg) || self.writes_reg(o, reg));
            let occupied = residents
                .iter()
                .any(|&(r, from, to)| r == reg && from < pos as u32 && to > at);
            if seen || occupied || self.last_use[i] > next_write[pos] {
                continue;
            }
            residents.push((reg, at, self.last_use[i]));
            stored.push((op, reg, v));
        }
        for (v, reg) in getregs {
            self.place[v.0 as usize] = Place::Reg(reg);
        }
        for (op, reg, setreg) in stored {
            self.place[op.0 as usize] = Place::Reg(reg);
            self.writes[setreg.0 as usize] = Write::Done;
        }
    }

    /// Whether the op is emitted at its own position and writes its whole result at once.
    fn makes_result(&self, v: Value) -> bool {
        let inst = self.region.inst(v);
        let pure_call =
            inst.op == Op::Call && Helper::from_imm(inst.imm).effects() == Effects::NONE;
        !matches!(
            inst.op,
            Op::Param | Op::GetReg | Op::Call | Op::Const | Op::VConst
        ) || pure_call
    }

    /// For each `getreg` and `setreg` of a block: where its register is written next.
    fn next_writes(&self, insts: &[Value]) -> Vec<u32> {
        let mut next = [u32::MAX; Reg::COUNT];
        let mut found = vec![u32::MAX; insts.len()];
        for (pos, &v) in insts.iter().enumerate().rev() {
            let inst = self.region.inst(v);
            if matches!(inst.op, Op::GetReg | Op::SetReg) {
                found[pos] = next[inst.imm as usize];
            }
            let mut written = self.writes(v);
            while written != 0 {
                next[written.trailing_zeros() as usize] = pos as u32;
                written &= written - 1;
            }
        }
        found
    }

    fn writes_reg(&self, v: Value, reg: Reg) -> bool {
        self.writes(v) & bit(reg) != 0
    }

    /// The registers that an op may write, as bits.
    fn writes(&self, v: Value) -> RegMask {
        let inst = self.region.inst(v);
        match inst.op {
            Op::SetReg => 1 << inst.imm,
            Op::SetFlags => Reg::of_class(RegClass::Flags),
            Op::Fuel | Op::Spend => bit(Reg::Fuel),
            Op::Call => call_writes(Helper::from_imm(inst.imm).effects()),
            _ => 0,
        }
    }
}

const fn bit(reg: Reg) -> RegMask {
    reg.bit()
}

/// What a helper with these effects may write, as bits.
fn call_writes(effects: Effects) -> RegMask {
    const CLASSES: [(Effects, RegMask); 6] = [
        (Effects::WRITE_GPR, Reg::of_class(RegClass::Gpr)),
        (Effects::WRITE_SEGMENT, Reg::of_class(RegClass::Segment)),
        (Effects::WRITE_CONTROL, Reg::of_class(RegClass::Control)),
        (Effects::WRITE_SSE, Reg::of_class(RegClass::Sse)),
        (Effects::OPAQUE, Reg::of_class(RegClass::Mmx)),
        (Effects::WRITE_FLAGS, Reg::of_class(RegClass::Flags)),
    ];
    let written = CLASSES.iter().filter(|&&(effect, _)| effects.has(effect));
    written.fold(0, |all, &(_, bits)| all | bits)
}
