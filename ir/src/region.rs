//! The data of a region: blocks of instructions in SSA form over one or more guest blocks.
//!
//! An instruction defines at most one value, so a [`Value`] is the id of the instruction that
//! defines it. Operands lie in one pool per region. Nothing is ever moved in memory: passes replace
//! operands, turn instructions into `copy` or drop them from their block's list.

use crate::flags::FlagKind;
use crate::guest::RegMask;
use crate::helpers::Helper;
use crate::ops::{Class, Effect, Imm, Op, Operands};
use crate::statemap::registers;
use crate::types::Type;
use std::fmt;

/// An instruction, and the value it defines if it defines one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Value(pub u32);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A block of the region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Block(pub u32);

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block{}", self.0)
    }
}

/// The size of the guest's code segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum CodeSize {
    /// 16-bit code.
    Code16,
    /// 32-bit code.
    Code32,
    /// 64-bit code.
    Code64,
}

impl CodeSize {
    /// 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        16 << self as u32
    }

    /// Which bits of RIP count.
    pub const fn pc_mask(self) -> u64 {
        match self {
            CodeSize::Code16 => 0xffff,
            CodeSize::Code32 => 0xffff_ffff,
            CodeSize::Code64 => u64::MAX,
        }
    }
}

/// An instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inst {
    /// The op.
    pub op: Op,
    /// The controlling type.
    pub ty: Type,
    /// The guest instruction it belongs to: an index into [`Region::guest`].
    pub insn: u16,
    /// Number of operands.
    pub nargs: u16,
    /// Where the operands start in the pool.
    pub first_arg: u32,
    /// The second part of the immediate; see [`Imm`]. Ops that access guest memory: the state map,
    /// see [`crate::statemap`].
    pub aux: u32,
    /// The immediate; see [`Imm`].
    pub imm: u64,
}

/// A guest instruction of the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestInsn {
    /// Its PC, as an offset from the region's entry PC.
    pub offset: i64,
    /// Its length in bytes, 1 to 15 (0: not decodable, #UD or fetch fault).
    pub len: u8,
    /// How many instructions its `fuel` op has paid for from this one on, itself included: what
    /// must be given back if the instruction faults.
    pub fuel_left: u16,
}

/// A block's parameters and instructions.
#[derive(Clone, Debug, Default)]
pub struct BlockData {
    /// The parameters, each a `param` instruction.
    pub params: Vec<Value>,
    /// The instructions in order; the last is the terminator.
    pub insts: Vec<Value>,
}

/// A region: what the frontend lifts and the engines run. Block 0 is the entry; it has no
/// parameters, and no branch goes to it.
#[derive(Clone, Debug)]
pub struct Region {
    /// The guest PC (RIP) at the entry.
    pub pc: u64,
    /// The code size it was decoded for.
    pub code_size: CodeSize,
    /// First and last PC of the page that the entry is on, where mappings can change: only direct
    /// exits into it may be linked, since no other PC is sure to mean the same code next time.
    pub page: Option<(u64, u64)>,
    /// The blocks.
    pub blocks: Vec<BlockData>,
    /// Every instruction, dropped ones included.
    pub insts: Vec<Inst>,
    /// The operand pool.
    pub pool: Vec<Value>,
    /// 128-bit constants.
    pub vconsts: Vec<u128>,
    /// The sets of registers in state maps, see [`crate::statemap`].
    pub state_maps: Vec<RegMask>,
    /// The guest instructions, in lifting order.
    pub guest: Vec<GuestInsn>,
}

impl Region {
    /// An empty region with an empty entry block.
    pub fn new(pc: u64, code_size: CodeSize) -> Region {
        Region {
            pc,
            code_size,
            page: None,
            blocks: vec![BlockData {
                params: Vec::new(),
                insts: Vec::with_capacity(48),
            }],
            insts: Vec::with_capacity(64),
            pool: Vec::with_capacity(128),
            vconsts: Vec::new(),
            state_maps: Vec::new(),
            guest: Vec::with_capacity(16),
        }
    }

    /// The entry block.
    pub const ENTRY: Block = Block(0);

    /// Whether a direct exit to that PC may be linked to the translation found there.
    pub fn is_linkable(&self, pc: u64) -> bool {
        self.page
            .is_none_or(|(first, last)| (first..=last).contains(&pc))
    }

    /// The instruction.
    #[inline]
    pub fn inst(&self, v: Value) -> &Inst {
        &self.insts[v.0 as usize]
    }

    /// The instruction, to change.
    #[inline]
    pub fn inst_mut(&mut self, v: Value) -> &mut Inst {
        &mut self.insts[v.0 as usize]
    }

    /// The operands of `v`.
    #[inline]
    pub fn args(&self, v: Value) -> &[Value] {
        let i = self.inst(v);
        &self.pool[i.first_arg as usize..i.first_arg as usize + i.nargs as usize]
    }

    /// The operands of `v`, to change in place.
    #[inline]
    pub fn args_mut(&mut self, v: Value) -> &mut [Value] {
        let i = *self.inst(v);
        &mut self.pool[i.first_arg as usize..i.first_arg as usize + i.nargs as usize]
    }

    /// Gives `v` new operands.
    pub fn set_args(&mut self, v: Value, args: &[Value]) {
        let first = self.pool.len() as u32;
        self.pool.extend_from_slice(args);
        let i = self.inst_mut(v);
        i.first_arg = first;
        i.nargs = args.len() as u16;
    }

    /// Makes an instruction without putting it into a block.
    pub fn make(
        &mut self,
        op: Op,
        ty: Type,
        insn: u16,
        args: &[Value],
        imm: u64,
        aux: u32,
    ) -> Value {
        let first_arg = self.pool.len() as u32;
        self.pool.extend_from_slice(args);
        self.insts.push(Inst {
            op,
            ty,
            insn,
            nargs: args.len() as u16,
            first_arg,
            aux,
            imm,
        });
        Value(self.insts.len() as u32 - 1)
    }

    /// Turns `v` into a copy of `of`, keeping its place and type.
    pub fn replace_with_copy(&mut self, v: Value, of: Value) {
        self.set_args(v, &[of]);
        let ty = self.result_type(v).unwrap_or(Type::I64);
        let i = self.inst_mut(v);
        (i.op, i.ty, i.imm, i.aux) = (Op::Copy, ty, 0, 0);
    }

    /// Turns `v` into a constant of its result type; integers are cut to their width.
    pub fn replace_with_const(&mut self, v: Value, bits: u64) {
        let ty = self
            .result_type(v)
            .expect("only a value can become a constant");
        let i = self.inst_mut(v);
        (i.op, i.ty, i.imm, i.aux, i.nargs) = (Op::Const, ty, bits & ty.mask(), 0, 0);
    }

    /// The type of the value that `v` defines, or `None` if it defines none.
    #[inline]
    pub fn result_type(&self, v: Value) -> Option<Type> {
        let i = self.inst(v);
        match i.op.info().result? {
            Class::Is(ty) => Some(ty),
            Class::Ctl | Class::Int | Class::Any => Some(i.ty),
        }
    }

    /// The type of the value.
    ///
    /// # Panics
    /// If the instruction defines none.
    #[inline]
    pub fn ty(&self, v: Value) -> Type {
        self.result_type(v).expect("operand without a value")
    }

    /// `v`, or what it is a copy of.
    pub fn uncopied(&self, v: Value) -> Value {
        let mut v = v;
        while self.inst(v).op == Op::Copy {
            v = self.args(v)[0];
        }
        v
    }

    /// The bits of an integer or float constant; looks through copies.
    pub fn as_const(&self, v: Value) -> Option<u64> {
        let i = self.inst(self.uncopied(v));
        (i.op == Op::Const).then_some(i.imm)
    }

    /// The class that operand `n` of `v` must have.
    pub fn operand_class(&self, v: Value, n: usize) -> Class {
        let i = self.inst(v);
        match i.op.info().operands {
            Operands::Fixed(classes) => match classes.get(n) {
                Some(&class) => class,
                None => registers(self.mapped(v))
                    .nth(n - classes.len())
                    .map_or(Class::Any, |r| Class::Is(r.ty())),
            },
            Operands::Flags => Class::Ctl,
            Operands::Helper => Helper::from_imm(i.imm)
                .args()
                .get(n)
                .map_or(Class::Any, |&ty| Class::Is(ty)),
            Operands::Branch if n == 0 && i.op == Op::BrIf => Class::Is(Type::I8),
            Operands::Branch => Class::Any,
        }
    }

    /// How many operands `v` must have; `None` where any number goes.
    pub fn operand_count(&self, v: Value) -> Option<usize> {
        let i = self.inst(v);
        match i.op.info().operands {
            Operands::Fixed(classes) => Some(classes.len() + self.mapped(v).count_ones() as usize),
            Operands::Flags => FlagKind::ALL.get(i.imm as usize).map(|k| k.arity()),
            Operands::Helper => Some(Helper::from_imm(i.imm).args().len()),
            Operands::Branch => None,
        }
    }

    /// The terminator of `block`.
    ///
    /// # Panics
    /// If the block is empty.
    pub fn terminator(&self, block: Block) -> Value {
        *self.blocks[block.0 as usize]
            .insts
            .last()
            .expect("block without terminator")
    }

    /// The blocks that a terminator may go to, with the arguments each gets; none for exits.
    pub fn successors(&self, terminator: Value) -> impl Iterator<Item = (Block, &[Value])> {
        let i = self.inst(terminator);
        let args = self.args(terminator);
        let edges: [Option<(Block, &[Value])>; 2] = match i.op.info().imm {
            Imm::Target => [Some((Block(i.imm as u32), args)), None],
            Imm::Targets => {
                let (first, second) = args[1..].split_at(i.aux as usize);
                [
                    Some((Block(i.imm as u32), first)),
                    Some((Block((i.imm >> 32) as u32), second)),
                ]
            }
            _ => [None, None],
        };
        edges.into_iter().flatten()
    }

    /// The ids of all blocks.
    pub fn block_ids(&self) -> impl Iterator<Item = Block> + use<> {
        (0..self.blocks.len() as u32).map(Block)
    }

    /// The guest PC at that offset from the entry.
    pub fn pc_at(&self, offset: i64) -> u64 {
        self.pc.wrapping_add(offset as u64) & self.code_size.pc_mask()
    }

    /// True if `v` may be dropped when its value is not used.
    pub fn is_removable(&self, v: Value) -> bool {
        let i = self.inst(v);
        match i.op.info().effect {
            Effect::Pure | Effect::ReadState => i.op != Op::Param,
            Effect::Float => !i.sets_mxcsr(),
            Effect::Helper => Helper::from_imm(i.imm).effects().is_removable(),
            _ => false,
        }
    }
}
