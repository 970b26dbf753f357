//! Lowers a region to CLIF, one function `(state, arg) -> reason`.
//!
//! Guest registers stay in the state, as the IR says: the IR's passes have forwarded what can be
//! forwarded. Whatever leaves the hot path (faults, exits of helpers, lack of fuel) goes to cold
//! blocks, whose common tails are shared.
//!
//! Accesses to the state and to guest memory are in different alias regions. The fuel counter is
//! in guest memory's: so each `fuel` op keeps Cranelift from carrying a guest load around a loop,
//! and the guest sees what others write there.

mod calls;
mod cold;
mod exits;
mod flags;
pub(crate) mod float;
mod int;
mod loaded;
mod memory;
mod state;
mod tlb;
mod vector;
mod window;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x87;

use crate::error::CompileError;
use crate::layout::{HelperTable, StateLayout};
use crate::options::{MemoryModel, OptLevel, Options};
use cranelift_codegen::ir::{
    self as clif, AbiParam, AliasRegionData, BlockArg, Function, InstBuilder, MemFlags,
    MemFlagsData, Signature, SourceLoc, TrapCode, UserFuncName, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use exits::Tails;
use loaded::Loaded;
#[cfg(target_arch = "x86_64")]
use metaphrase_ir::RegClass;
use metaphrase_ir::{Block, Inst, Op, Reg, Region, Type, Value};
use std::collections::HashMap;
use window::Checked;

/// Trap codes tell guest instructions apart modulo this.
pub(crate) const TRAP_CODES: u32 = 83;

/// What a trap code says of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It has a state map, so a cold block of its own.
    Mapped,
}

impl Access {
    /// What an op without state map is.
    fn of(op: Op) -> Access {
        if op == Op::Load {
            Access::Read
        } else {
            Access::Write
        }
    }
}

/// The trap code of a memory access of guest instruction `insn`.
fn trap_code(insn: u16, access: Access) -> TrapCode {
    let part = access as u32 * TRAP_CODES;
    TrapCode::unwrap_user((part + u32::from(insn) % TRAP_CODES + 1) as u8)
}

/// What a trap code holds: the guest instruction modulo [`TRAP_CODES`], and what the access is.
pub(crate) fn trap_number(code: TrapCode) -> Option<(u32, Access)> {
    let n = u32::from(code.as_raw().get()) - 1;
    let access = match n / TRAP_CODES {
        0 => Access::Read,
        1 => Access::Write,
        2 => Access::Mapped,
        _ => return None,
    };
    Some((n % TRAP_CODES, access))
}

/// The source location of the branch before mapped access `n`; those of others are guest
/// instructions.
const MAPPED: u32 = 1 << 30;

/// The mapped access that a source location is about.
pub(crate) fn mapped_location(loc: SourceLoc) -> Option<usize> {
    let n = loc.bits();
    (!loc.is_default() && n & MAPPED != 0).then_some((n & !MAPPED) as usize)
}

/// What is compiled, and for whom.
pub(crate) struct Unit<'a> {
    pub(crate) region: &'a Region,
    pub(crate) isa: &'a dyn TargetIsa,
    pub(crate) layout: &'a StateLayout,
    pub(crate) helpers: &'a HelperTable,
    pub(crate) options: &'a Options,
    pub(crate) slot_base: u32,
    /// Whether there is floating point in the region.
    pub(crate) float: bool,
    /// The accesses to guest memory of x87 instructions that are done inline.
    #[cfg(target_arch = "x86_64")]
    pub(crate) x87: &'a x87::Accesses,
}

/// What the compiler must know about the function besides its code.
pub(crate) struct Lowered {
    /// The targets of the direct exits, by index.
    pub(crate) targets: Vec<i64>,
    /// The accesses with state maps, by number.
    pub(crate) mapped: Vec<Value>,
}

/// Working memory that is kept between regions.
#[derive(Default)]
pub(crate) struct Scratch {
    values: Vec<Option<clif::Value>>,
    blocks: Vec<clif::Block>,
    order: Vec<Block>,
    /// Values that something with an effect needs; only filled for regions with floating point.
    used: Vec<bool>,
    /// By block: whether a later one of the order goes to it.
    heads: Vec<bool>,
    /// Values that only cold blocks need, which compute them.
    cold: Vec<bool>,
}

/// Lowers the region into `func`.
pub(crate) fn lower(
    unit: &Unit<'_>,
    func: &mut Function,
    fcx: &mut FunctionBuilderContext,
    scratch: &mut Scratch,
) -> Result<Lowered, CompileError> {
    func.name = UserFuncName::default();
    func.signature = crate::common::region_signature();
    scratch.values.clear();
    scratch.values.resize(unit.region.insts.len(), None);
    scratch.blocks.clear();
    if unit.float {
        float::mark_used(unit.region, &mut scratch.used);
    }
    cold::mark_cold(unit.region, &mut scratch.cold);
    reverse_postorder(unit.region, &mut scratch.order);
    mark_loop_heads(unit.region, &scratch.order, &mut scratch.heads);
    let mut b = FunctionBuilder::new(func, fcx);
    for _ in &unit.region.blocks {
        scratch.blocks.push(b.create_block());
    }
    let entry = scratch.blocks[0];
    b.append_block_params_for_function_params(entry);
    let state = b.block_params(entry)[0];
    let mut region = |user_id, description: &'static str| {
        b.func.dfg.alias_regions.insert(AliasRegionData {
            user_id,
            description: description.into(),
        })
    };
    let (of_state, of_guest, of_cache, of_tlb) = (
        region(0, "guest state"),
        region(1, "guest memory"),
        region(2, "jump cache"),
        region(3, "soft TLB"),
    );
    let mut flags = |data: MemFlagsData| b.func.dfg.mem_flags.insert_unchecked(data);
    let trusted = MemFlagsData::trusted();
    let guest_kept = MemFlagsData::new().with_alias_region(Some(of_guest));
    let guest = guest_kept.with_endianness(clif::Endianness::Little);
    let guest_kept = if cfg!(target_endian = "little") {
        guest_kept
    } else {
        guest
    };
    let mut lower = Lower {
        in_state: flags(trusted.with_alias_region(Some(of_state))),
        in_fuel: flags(trusted.with_alias_region(Some(of_guest))),
        in_cache: flags(trusted.with_alias_region(Some(of_cache))),
        in_tlb: flags(trusted.with_alias_region(Some(of_tlb))),
        fixed: flags(trusted.with_alias_region(Some(of_state)).with_readonly()),
        constant: flags(
            trusted
                .with_alias_region(Some(of_state))
                .with_readonly()
                .with_can_move(),
        ),
        guest,
        guest_kept,
        unit,
        region: unit.region,
        b,
        s: scratch,
        state,
        mem_base: None,
        mem_limit: None,
        insn: 0,
        targets: Vec::new(),
        tails: Tails::default(),
        checked: Checked::default(),
        loaded: match (unit.options.memory, unit.options.opt) {
            (MemoryModel::Window, OptLevel::Speed) => Loaded::of(unit.region),
            _ => Loaded::default(),
        },
        cc_op: None,
        helper_sig: None,
        region_sig: None,
        slow_sig: None,
        wide: HashMap::new(),
        stub_sigs: Vec::new(),
        mapped: Vec::new(),
        made_cold: Vec::new(),
        loc: 0,
        #[cfg(target_arch = "x86_64")]
        x87_sig: None,
        #[cfg(target_arch = "x86_64")]
        pointers: None,
    };
    lower.run()?;
    let Lower {
        b, targets, mapped, ..
    } = lower;
    b.finalize(unit.isa.frontend_config());
    Ok(Lowered { targets, mapped })
}

/// The blocks that can be reached, definitions before uses.
fn reverse_postorder(region: &Region, order: &mut Vec<Block>) {
    order.clear();
    let mut seen = vec![false; region.blocks.len()];
    seen[0] = true;
    let mut stack = vec![(Region::ENTRY, 0)];
    while let Some((block, next)) = stack.pop() {
        let mut successors = region.successors(region.terminator(block));
        match successors.nth(next) {
            Some((to, _)) => {
                stack.push((block, next + 1));
                if !std::mem::replace(&mut seen[to.0 as usize], true) {
                    stack.push((to, 0));
                }
            }
            None => order.push(block),
        }
    }
    order.reverse();
}

/// Marks the blocks that some block goes back to.
fn mark_loop_heads(region: &Region, order: &[Block], heads: &mut Vec<bool>) {
    heads.clear();
    heads.resize(region.blocks.len(), false);
    let mut seen = vec![false; region.blocks.len()];
    for &block in order {
        seen[block.0 as usize] = true;
        for (to, _) in region.successors(region.terminator(block)) {
            heads[to.0 as usize] |= seen[to.0 as usize];
        }
    }
}

/// The lowering of one region.
struct Lower<'a, 'f> {
    unit: &'a Unit<'a>,
    region: &'a Region,
    b: FunctionBuilder<'f>,
    s: &'f mut Scratch,
    state: clif::Value,
    mem_base: Option<clif::Value>,
    mem_limit: Option<clif::Value>,
    /// The guest instruction being lowered.
    insn: u16,
    targets: Vec<i64>,
    tails: Tails,
    checked: Checked,
    loaded: Loaded,
    /// What is known to be in the state's `cc_op`.
    cc_op: Option<u32>,
    helper_sig: Option<clif::SigRef>,
    region_sig: Option<clif::SigRef>,
    slow_sig: Option<clif::SigRef>,
    /// Values that are known zero-extended to 64 bits.
    wide: HashMap<Value, clif::Value>,
    /// Signatures of stubs by their operands' type.
    stub_sigs: Vec<(clif::Type, clif::SigRef)>,
    /// The accesses with state maps so far.
    mapped: Vec<Value>,
    /// The values that the current cold block has computed for itself.
    made_cold: Vec<Value>,
    /// The current source location.
    loc: u16,
    /// The signature of the x87's stubs.
    #[cfg(target_arch = "x86_64")]
    x87_sig: Option<clif::SigRef>,
    /// The pointers to the last x87 instruction, if they are still to be written.
    #[cfg(target_arch = "x86_64")]
    pointers: Option<x87::Pointers>,
    in_state: MemFlags,
    in_fuel: MemFlags,
    in_cache: MemFlags,
    in_tlb: MemFlags,
    constant: MemFlags,
    /// Constant too, but loaded where it is asked for: not between a branch and its access.
    fixed: MemFlags,
    guest: MemFlagsData,
    /// The same for stores that must not be dropped: see `loaded.rs`.
    guest_kept: MemFlagsData,
}

impl Lower<'_, '_> {
    fn run(&mut self) -> Result<(), CompileError> {
        for block in self.region.block_ids().skip(1) {
            for &param in &self.region.blocks[block.0 as usize].params {
                let ty = clif_type(self.region.ty(param));
                let v = self
                    .b
                    .append_block_param(self.s.blocks[block.0 as usize], ty);
                self.s.values[param.0 as usize] = Some(v);
            }
        }
        let order = std::mem::take(&mut self.s.order);
        for &block in &order {
            self.b.switch_to_block(self.s.blocks[block.0 as usize]);
            let cold = cold::is_cold(self.region, block);
            if cold {
                self.b.set_cold_block(self.s.blocks[block.0 as usize]);
            }
            if block == Region::ENTRY {
                self.prepare_memory();
                #[cfg(target_arch = "x86_64")]
                self.prepare_x87();
            } else if self.s.heads[block.0 as usize] {
                // Keeps Cranelift from carrying a guest load around the loop: the guest must see
                // what others write there.
                self.b.ins().sequence_point();
            }
            self.checked.clear();
            self.cc_op = None;
            let region = self.region;
            self.loc = 0;
            for &v in &region.blocks[block.0 as usize].insts {
                if self.s.cold[v.0 as usize] && !cold {
                    continue;
                }
                let inst = region.inst(v);
                self.insn = inst.insn;
                // Never backwards inside a block, see `faults` in the compiler.
                self.loc = self.loc.max(inst.insn);
                self.b.set_srcloc(SourceLoc::new(self.loc.into()));
                if cold {
                    region.args(v).iter().try_for_each(|&a| self.make_cold(a))?;
                }
                let result = self.inst(v, inst)?;
                self.s.values[v.0 as usize] = result;
            }
            self.end_cold();
        }
        self.s.order = order;
        self.finish_tails();
        self.b.seal_all_blocks();
        Ok(())
    }

    fn inst(&mut self, v: Value, inst: &Inst) -> Result<Option<clif::Value>, CompileError> {
        let region = self.region;
        let args = region.args(v);
        #[cfg(target_arch = "x86_64")]
        self.settle_pointers(inst);
        use Op::*;
        Ok(match inst.op {
            Zext if self.wide.contains_key(&args[0]) => {
                let wide = self.wide[&args[0]];
                let ty = clif_type(inst.ty);
                Some(match inst.ty {
                    Type::I64 => wide,
                    _ => self.b.ins().ireduce(ty, wide),
                })
            }
            Const | Pc | Add | Sub | Mul | UMulHi | SMulHi | UDiv | SDiv | URem | SRem | And
            | Or | Xor | Shl | LShr | AShr | RotL | RotR | Neg | Not | Bswap | Clz | Ctz
            | Popcnt | ICmp | Select | Zext | Sext | Trunc | Ext | Ins | Bitcast => {
                Some(self.int_op(inst, args))
            }
            Copy => Some(self.value(args[0])),
            Param => self.s.values[v.0 as usize],
            GetReg => {
                let reg = Reg::ALL[inst.imm as usize];
                let (ty, offset) = (clif_type(inst.ty), self.unit.layout.reg(reg));
                #[cfg(target_arch = "x86_64")]
                if reg.class() == RegClass::Mmx && self.unit.options.x87 {
                    self.leave_x87();
                }
                let flags = self.state_flags(reg);
                Some(self.load_with(ty, flags, self.state, offset as i32))
            }
            SetReg => {
                let reg = Reg::ALL[inst.imm as usize];
                let value = self.value(args[0]);
                if reg == Reg::CcOp {
                    self.cc_op = None;
                }
                let (flags, offset) = (self.state_flags(reg), self.unit.layout.reg(reg));
                self.store_with(flags, value, self.state, offset as i32);
                None
            }
            SetFlags => {
                self.set_flags(inst, args);
                None
            }
            GetCond => Some(self.get_cond(inst)),
            GetFlags => Some(self.get_flags()),
            Load | Store | Rmw | Cas | Fence => self.memory_op(v)?,
            FAdd | FSub | FMul | FDiv | FSqrt | FMin | FMax | FCmp | FSignal | FCvt | IToF
            | FToI => {
                let result = self.float_op(inst, args)?;
                self.keep(v, inst, result)
            }
            VConst | VAnd | VOr | VXor | VAndNot | VSelect | VAdd | VSub | VMul | VDiv | VSqrt
            | VMinS | VMaxS | VMinU | VMaxU | VAvgU | VAddSatS | VAddSatU | VSubSatS | VSubSatU
            | VMulHiS | VMulHiU | VMulWideU | VMAddWD | VSad | VICmp | VFCmp | VShl | VLShr
            | VAShr | VShuffle | VPackSS | VPackUS | VMask | VSplat | VGet | VSet | VFromInt
            | VIToF | VFToI | VFCvt => {
                let result = if inst.sets_mxcsr() && !crate::sse::NATIVE {
                    self.float_by_helper(inst, args)?
                } else {
                    Some(self.vector_op(inst, args)?)
                };
                self.keep(v, inst, result)
            }
            Fuel => {
                self.need(inst.imm);
                self.spend(inst.imm);
                None
            }
            Need => {
                self.need(inst.imm);
                None
            }
            Spend => {
                self.spend(inst.imm);
                None
            }
            TrapIf => {
                self.trap_if(inst, args[0]);
                None
            }
            Call => {
                let result = self.call(v, inst, args)?;
                self.keep(v, inst, Some(result))
            }
            Br | BrIf => {
                self.branch(v);
                None
            }
            Jump | JumpIf | CallTo | IJump | ICall | Ret | Syscall | Raise | OutOfFuel | Trap
            | Halt | Emulate | Resume => {
                self.exit(inst, args);
                None
            }
        })
    }

    /// The result of an op, anchored if its flags would be lost otherwise.
    fn keep(&mut self, v: Value, inst: &Inst, result: Option<clif::Value>) -> Option<clif::Value> {
        if let Some(value) = result
            && float::sets_flags(inst)
            && !self.s.used[v.0 as usize]
        {
            self.anchor(value);
        }
        result
    }

    /// The CLIF value of an operand.
    fn value(&self, v: Value) -> clif::Value {
        self.s.values[v.0 as usize].expect("an operand is defined before its use")
    }

    /// A constant of an integer type; bits above it are ignored.
    fn iconst(&mut self, ty: clif::Type, bits: u64) -> clif::Value {
        let bits = if ty.bits() < 64 {
            bits & ((1 << ty.bits()) - 1)
        } else {
            bits
        };
        self.b.ins().iconst(ty, bits as i64)
    }

    /// Goes on in a cold block if `cond` is not 0; the caller fills it and then calls
    /// [`Lower::resume`] with the second block.
    fn branch_cold(&mut self, cond: clif::Value) -> clif::Block {
        let (cold, hot) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(cond, cold, &[], hot, &[]);
        self.b.switch_to_block(cold);
        hot
    }

    fn branch(&mut self, v: Value) {
        let region = self.region;
        let mut edges = [const { Vec::new() }; 2];
        let mut targets = [self.s.blocks[0]; 2];
        for (n, (block, args)) in region.successors(v).enumerate() {
            targets[n] = self.s.blocks[block.0 as usize];
            for &arg in args {
                let arg = self.value(arg);
                // Block parameters hold vectors as bytes.
                let ty = self.b.func.dfg.value_type(arg);
                let arg = if ty.is_vector() {
                    self.bitcast(types::I8X16, arg)
                } else {
                    arg
                };
                edges[n].push(BlockArg::Value(arg));
            }
        }
        if region.inst(v).op == Op::Br {
            self.b.ins().jump(targets[0], &edges[0]);
        } else {
            let cond = self.value(region.args(v)[0]);
            self.b
                .ins()
                .brif(cond, targets[0], &edges[0], targets[1], &edges[1]);
        }
    }

    fn signature_of_regions(&mut self) -> clif::SigRef {
        *self
            .region_sig
            .get_or_insert_with(|| self.b.import_signature(crate::common::region_signature()))
    }

    fn signature_of_helpers(&mut self) -> clif::SigRef {
        let unit = self.unit;
        *self.helper_sig.get_or_insert_with(|| {
            let mut sig = Signature::new(unit.isa.default_call_conv());
            sig.params.extend([AbiParam::new(types::I64); 5]);
            sig.returns.push(AbiParam::new(types::I64));
            self.b.import_signature(sig)
        })
    }
}

/// The CLIF type that values of an IR type have in block parameters, and loads have at first.
fn clif_type(ty: Type) -> clif::Type {
    match ty {
        Type::I8 => types::I8,
        Type::I16 => types::I16,
        Type::I32 => types::I32,
        Type::I64 => types::I64,
        Type::F32 => types::F32,
        Type::F64 => types::F64,
        Type::V128 => types::I8X16,
    }
}
