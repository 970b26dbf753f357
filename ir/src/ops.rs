//! The op table: the one place that declares every IR operation.
//!
//! Each row gives the variant, the name in the text form, the classes of the operands, the class
//! of the result, the kind of immediate, the effect, and one line of meaning. The enum, the
//! builder, the printer, the parser and the verifier all work from these rows.
//!
//! An instruction has one *controlling type* (`Inst::ty`), printed after the op's name; operand
//! and result classes refer to it. Integer ops wrap; no op has undefined results except where its
//! row says "requires".

use crate::builder::Builder;
use crate::region::Value;
use crate::types::{Shape, Type};
use std::fmt;

/// What an operand or a result must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Exactly the controlling type.
    Ctl,
    /// Any integer type.
    Int,
    /// Any type.
    Any,
    /// This type.
    Is(Type),
}

/// How many operands an op takes and of what class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operands {
    /// These, in order.
    Fixed(&'static [Class]),
    /// As many `Ctl` operands as the [`crate::FlagKind`] takes.
    Flags,
    /// The arguments that the [`crate::Helper`] declares.
    Helper,
    /// Block arguments, after an `i8` condition if the op has two targets.
    Branch,
}

/// Which types may control an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// No controlling type is printed; `Inst::ty` is the given one.
    Only(Type),
    /// i8, i16, i32, i64.
    AnyInt,
    /// i32, i64.
    WideInt,
    /// f32, f64.
    AnyFloat,
    /// Every type.
    AnyType,
}

/// What the immediate of an op is. It lies in `Inst::imm` and `Inst::aux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imm {
    /// None.
    None,
    /// `imm`: the constant's bits (floats: their IEEE image).
    Bits,
    /// `imm`: an index into `Region::vconsts`.
    V128,
    /// `imm`: a [`crate::Reg`].
    Reg,
    /// `imm`: a [`crate::Cond`].
    Cond,
    /// `imm`: an [`IntCc`].
    IntCc,
    /// `imm`: a [`FloatCc`].
    FloatCc,
    /// `imm`: a [`crate::FlagKind`].
    Flags,
    /// `imm`: a [`crate::Helper`]; `aux`: its descriptor, an opaque constant first argument.
    Helper,
    /// `imm`: an [`AccessKind`].
    Access,
    /// `imm`: a [`RmwOp`].
    Rmw,
    /// `imm`: a [`Shape`](crate::Shape).
    Shape,
    /// `imm`: a shape; `aux`: a lane number.
    Lane,
    /// `imm`: a shape; `aux`: a [`FloatCc`].
    ShapeFloatCc,
    /// `imm`: a shape; `aux`: an [`IntCc`].
    ShapeIntCc,
    /// `imm`: a bit offset, 0 to 63.
    BitOffset,
    /// `imm`: a count.
    Count,
    /// `imm`: a [`Round`].
    Round,
    /// `imm`: a guest PC as an offset from the region's entry PC (i64).
    Pc,
    /// `imm`: a target as `Pc`; `aux`: the fall-through or return PC, likewise (as i32).
    PcPair,
    /// `aux`: a return PC as an offset from the region's entry PC (as i32).
    RetPc,
    /// `imm`: an exception vector, 0 to 31.
    Vector,
    /// `imm`: a [`SyscallKind`]; `aux`: the next instruction's PC offset (as i32).
    Syscall,
    /// `imm`: the block.
    Target,
    /// `imm`: the block taken (low half) and the other one (high half); `aux`: how many of the
    /// arguments go to the first.
    Targets,
}

/// What an op does besides computing its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: it may be removed, repeated or moved.
    Pure,
    /// Sets flags in MXCSR (an op on lanes: if they are floats), and nothing else: it must not be
    /// removed, nor move past what may look at them or leave. See [`crate::Inst::sets_mxcsr`].
    Float,
    /// Reads guest registers.
    ReadState,
    /// Writes guest registers.
    WriteState,
    /// Reads guest memory and may raise a guest fault.
    Load,
    /// Writes (or reads and writes) guest memory and may raise a guest fault.
    Store,
    /// May leave the region: the guest state must be complete before it.
    MayExit,
    /// What its helper declares.
    Helper,
    /// Ends its block without leaving the region.
    Branch,
    /// Ends its block and leaves the region.
    Exit,
}

macro_rules! ops {
    ($($variant:ident $name:ident $ctl:expr, $operands:tt, $result:expr, $imm:ident, $effect:ident, $doc:literal;)*) => {
        /// An IR operation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $doc] $variant,)* }

        impl Op {
            /// Every op, in the table's order.
            pub const ALL: &'static [Op] = &[$(Op::$variant,)*];

            /// The op's row in the table.
            pub const fn info(self) -> &'static OpInfo {
                const TABLE: &[OpInfo] = &[$(OpInfo {
                    name: stringify!($name),
                    control: $ctl,
                    operands: $operands,
                    result: $result,
                    imm: Imm::$imm,
                    effect: Effect::$effect,
                    doc: $doc,
                },)*];
                &TABLE[self as usize]
            }

            /// The op with that name.
            pub fn from_name(name: &str) -> Option<Op> {
                $(if name == stringify!($name) { return Some(Op::$variant); })*
                None
            }
        }

        /// One method for each op whose operands and immediate are regular; `ty` comes from `a`.
        impl Builder<'_> { $(ops!(@method $variant $name $operands $imm $doc);)* }
    };
    (@method $variant:ident $name:ident UN None $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, a: Value) -> Value {
            self.ins(Op::$variant, self.ty(a), &[a], 0, 0)
        }
    };
    (@method $variant:ident $name:ident BIN None $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, a: Value, b: Value) -> Value {
            self.ins(Op::$variant, self.ty(a), &[a, b], 0, 0)
        }
    };
    (@method $variant:ident $name:ident TERN None $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, a: Value, b: Value, c: Value) -> Value {
            self.ins(Op::$variant, self.ty(a), &[a, b, c], 0, 0)
        }
    };
    (@method $variant:ident $name:ident UN Shape $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, shape: Shape, a: Value) -> Value {
            self.ins(Op::$variant, self.ty(a), &[a], shape as u64, 0)
        }
    };
    (@method $variant:ident $name:ident BIN Shape $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, shape: Shape, a: Value, b: Value) -> Value {
            self.ins(Op::$variant, self.ty(a), &[a, b], shape as u64, 0)
        }
    };
    (@method $($irregular:tt)*) => {};
}

/// A row of the op table.
#[derive(Debug)]
pub struct OpInfo {
    /// The name in the text form.
    pub name: &'static str,
    /// Which types may control it.
    pub control: Control,
    /// Its operands.
    pub operands: Operands,
    /// Its result, if it has one.
    pub result: Option<Class>,
    /// Its immediate.
    pub imm: Imm,
    /// Its effect.
    pub effect: Effect,
    /// One line of meaning.
    pub doc: &'static str,
}

use Class::{Any, Ctl, Int, Is};
use Control::{AnyFloat, AnyInt, AnyType, Only, WideInt};
use Operands::Fixed;
use Type::{I8, I64, V128};

const NONE: Operands = Fixed(&[]);
const UN: Operands = Fixed(&[Ctl]);
const BIN: Operands = Fixed(&[Ctl, Ctl]);
const TERN: Operands = Fixed(&[Ctl, Ctl, Ctl]);
const VEC: Control = Only(V128);
const ADDR: Class = Is(I64);

ops! {
    // Constants and copies.
    Const iconst AnyType, NONE, Some(Ctl), Bits, Pure, "The constant (any type but v128).";
    VConst vconst VEC, NONE, Some(Ctl), V128, Pure, "The 128-bit constant.";
    Pc pc Only(I64), NONE, Some(Ctl), Pc, Pure, "The guest PC (RIP, not linear) at that offset from the region's entry, cut to the code size's width.";
    Param param AnyType, NONE, Some(Ctl), None, Pure, "A block parameter; only at a block's start, where the text form shows it in the header.";
    Copy copy AnyType, UN, Some(Ctl), None, Pure, "Its operand; passes leave it where a value was replaced.";

    // Integer arithmetic. Shift counts are taken modulo the width.
    Add add AnyInt, BIN, Some(Ctl), None, Pure, "a + b.";
    Sub sub AnyInt, BIN, Some(Ctl), None, Pure, "a - b.";
    Mul mul AnyInt, BIN, Some(Ctl), None, Pure, "The low half of a * b.";
    UMulHi umulhi AnyInt, BIN, Some(Ctl), None, Pure, "The high half of the unsigned product.";
    SMulHi smulhi AnyInt, BIN, Some(Ctl), None, Pure, "The high half of the signed product.";
    UDiv udiv AnyInt, BIN, Some(Ctl), None, Pure, "Unsigned a / b, rounded to zero; requires b != 0.";
    SDiv sdiv AnyInt, BIN, Some(Ctl), None, Pure, "Signed a / b, rounded to zero; requires b != 0 and a representable quotient.";
    URem urem AnyInt, BIN, Some(Ctl), None, Pure, "Unsigned remainder; requires b != 0.";
    SRem srem AnyInt, BIN, Some(Ctl), None, Pure, "Signed remainder, with a's sign; requires b != 0 and a representable quotient.";
    And and AnyInt, BIN, Some(Ctl), None, Pure, "Bitwise and.";
    Or or AnyInt, BIN, Some(Ctl), None, Pure, "Bitwise or.";
    Xor xor AnyInt, BIN, Some(Ctl), None, Pure, "Bitwise exclusive or.";
    Shl shl AnyInt, BIN, Some(Ctl), None, Pure, "a shifted left by b.";
    LShr lshr AnyInt, BIN, Some(Ctl), None, Pure, "a shifted right by b, zeros coming in.";
    AShr ashr AnyInt, BIN, Some(Ctl), None, Pure, "a shifted right by b, the sign coming in.";
    RotL rotl AnyInt, BIN, Some(Ctl), None, Pure, "a rotated left by b.";
    RotR rotr AnyInt, BIN, Some(Ctl), None, Pure, "a rotated right by b.";
    Neg neg AnyInt, UN, Some(Ctl), None, Pure, "0 - a.";
    Not not AnyInt, UN, Some(Ctl), None, Pure, "Every bit of a inverted.";
    Bswap bswap AnyInt, UN, Some(Ctl), None, Pure, "The bytes of a in reverse order.";
    Clz clz AnyInt, UN, Some(Ctl), None, Pure, "Leading zero bits; the width if a is 0.";
    Ctz ctz AnyInt, UN, Some(Ctl), None, Pure, "Trailing zero bits; the width if a is 0.";
    Popcnt popcnt AnyInt, UN, Some(Ctl), None, Pure, "The number of one bits.";
    ICmp icmp AnyInt, BIN, Some(Is(I8)), IntCc, Pure, "1 if the comparison holds, else 0.";
    Select select AnyType, (Fixed(&[Is(I8), Ctl, Ctl])), Some(Ctl), None, Pure, "b if the condition a is not 0, else c.";

    // Widths and parts.
    Zext zext AnyInt, (Fixed(&[Int])), Some(Ctl), None, Pure, "a, of a narrower type, extended with zeros.";
    Sext sext AnyInt, (Fixed(&[Int])), Some(Ctl), None, Pure, "a, of a narrower type, extended with its sign.";
    Trunc trunc AnyInt, (Fixed(&[Int])), Some(Ctl), None, Pure, "The low bits of a, of a wider type.";
    Ext ext AnyInt, (Fixed(&[Is(I64)])), Some(Ctl), BitOffset, Pure, "The bits of a from that offset on (i8 at 8 is AH).";
    Ins ins AnyInt, (Fixed(&[Is(I64), Ctl])), Some(Is(I64)), BitOffset, Pure, "a with b inserted at that offset.";
    Bitcast bitcast AnyType, (Fixed(&[Any])), Some(Ctl), None, Pure, "The same bits as another type of the same size (i32/f32, i64/f64).";

    // Guest state.
    GetReg getreg AnyType, NONE, Some(Ctl), Reg, ReadState, "The guest register's value.";
    SetReg setreg AnyType, UN, None, Reg, WriteState, "Writes the guest register.";
    SetFlags setflags AnyInt, (Operands::Flags), None, Flags, WriteState, "Defines all six arithmetic flags, lazily.";
    GetCond getcond Only(I8), NONE, Some(Ctl), Cond, ReadState, "1 if the condition holds for the flags, else 0.";
    GetFlags getflags Only(I64), NONE, Some(Ctl), None, ReadState, "The six arithmetic flags in their RFLAGS positions; every other bit 0.";

    // Guest memory. Addresses are linear; a fault belongs to the instruction `Inst::insn`.
    Load load AnyType, (Fixed(&[ADDR])), Some(Ctl), Access, Load, "The value at linear address a, little-endian, any alignment.";
    Store store AnyType, (Fixed(&[ADDR, Ctl])), None, Access, Store, "Writes b at linear address a; all of it or, on a fault, nothing.";
    Rmw rmw AnyInt, (Fixed(&[ADDR, Ctl])), Some(Ctl), Rmw, Store, "Atomically combines b into memory at a; the old value.";
    Cas cas AnyType, (Fixed(&[ADDR, Ctl, Ctl])), Some(Ctl), None, Store, "Atomically writes c at a if memory there equals b (else writes back what was there); the old value. Integers and v128.";
    Fence fence Only(I8), NONE, None, None, Store, "A full memory barrier.";

    // Scalar floating point, x86 semantics (SDM volume 1, chapter 4.8).
    FAdd fadd AnyFloat, BIN, Some(Ctl), None, Float, "a + b.";
    FSub fsub AnyFloat, BIN, Some(Ctl), None, Float, "a - b.";
    FMul fmul AnyFloat, BIN, Some(Ctl), None, Float, "a * b.";
    FDiv fdiv AnyFloat, BIN, Some(Ctl), None, Float, "a / b.";
    FSqrt fsqrt AnyFloat, UN, Some(Ctl), None, Float, "The square root of a.";
    FMin fmin AnyFloat, BIN, Some(Ctl), None, Float, "a < b ? a : b (so b for NaN and for two zeros).";
    FMax fmax AnyFloat, BIN, Some(Ctl), None, Float, "a > b ? a : b.";
    FCmp fcmp AnyFloat, BIN, Some(Is(I8)), FloatCc, Pure, "1 if the comparison holds, else 0; an `fsignal` of the same operands has its flags.";
    FSignal fsignal AnyFloat, BIN, None, Count, Float, "Sets MXCSR's flags as COMIS (immediate 1) or UCOMIS (0) of a and b does.";
    FCvt fcvt AnyFloat, (Fixed(&[Any])), Some(Ctl), None, Float, "The other float type's value converted.";
    IToF itof AnyFloat, (Fixed(&[Int])), Some(Ctl), None, Float, "A signed i32 or i64 converted.";
    FToI ftoi WideInt, (Fixed(&[Any])), Some(Ctl), Round, Float, "A float converted to a signed integer; out of range or NaN gives the integer indefinite value (only the top bit set).";

    // 128-bit vectors. Lanes count from the low end.
    VAnd vand VEC, BIN, Some(Ctl), None, Pure, "Bitwise and.";
    VOr vor VEC, BIN, Some(Ctl), None, Pure, "Bitwise or.";
    VXor vxor VEC, BIN, Some(Ctl), None, Pure, "Bitwise exclusive or.";
    VAndNot vandnot VEC, BIN, Some(Ctl), None, Pure, "(not a) and b, as PANDN.";
    VSelect vselect VEC, TERN, Some(Ctl), None, Pure, "Bitwise: b where a's bit is 1, else c.";
    VAdd vadd VEC, BIN, Some(Ctl), Shape, Float, "Lane sums; floats by x86 rules.";
    VSub vsub VEC, BIN, Some(Ctl), Shape, Float, "Lane differences.";
    VMul vmul VEC, BIN, Some(Ctl), Shape, Float, "Low halves of lane products (i16x8, i32x4), or float products.";
    VDiv vdiv VEC, BIN, Some(Ctl), Shape, Float, "Float lane quotients.";
    VSqrt vsqrt VEC, UN, Some(Ctl), Shape, Float, "Float lane square roots.";
    VMinS vmins VEC, BIN, Some(Ctl), Shape, Float, "Signed minima; for float shapes a < b ? a : b.";
    VMaxS vmaxs VEC, BIN, Some(Ctl), Shape, Float, "Signed maxima; for float shapes a > b ? a : b.";
    VMinU vminu VEC, BIN, Some(Ctl), Shape, Pure, "Unsigned minima.";
    VMaxU vmaxu VEC, BIN, Some(Ctl), Shape, Pure, "Unsigned maxima.";
    VAvgU vavgu VEC, BIN, Some(Ctl), Shape, Pure, "Unsigned averages, rounded up (i8x16, i16x8).";
    VAddSatS vaddsats VEC, BIN, Some(Ctl), Shape, Pure, "Signed saturating sums (i8x16, i16x8).";
    VAddSatU vaddsatu VEC, BIN, Some(Ctl), Shape, Pure, "Unsigned saturating sums (i8x16, i16x8).";
    VSubSatS vsubsats VEC, BIN, Some(Ctl), Shape, Pure, "Signed saturating differences (i8x16, i16x8).";
    VSubSatU vsubsatu VEC, BIN, Some(Ctl), Shape, Pure, "Unsigned saturating differences (i8x16, i16x8).";
    VMulHiS vmulhis VEC, BIN, Some(Ctl), Shape, Pure, "High halves of signed i16x8 products (PMULHW).";
    VMulHiU vmulhiu VEC, BIN, Some(Ctl), Shape, Pure, "High halves of unsigned i16x8 products (PMULHUW).";
    VMulWideU vmulwideu VEC, BIN, Some(Ctl), None, Pure, "i64x2 products of the even u32 lanes (PMULUDQ).";
    VMAddWD vmaddwd VEC, BIN, Some(Ctl), None, Pure, "i32x4 sums of adjacent signed i16 products (PMADDWD).";
    VSad vsad VEC, BIN, Some(Ctl), None, Pure, "i64x2 sums of absolute byte differences (PSADBW).";
    VICmp vicmp VEC, BIN, Some(Ctl), ShapeIntCc, Pure, "All ones in each lane where the comparison holds, else zeros.";
    VFCmp vfcmp VEC, BIN, Some(Ctl), ShapeFloatCc, Float, "All ones in each float lane where the comparison holds, else zeros.";
    VShl vshl VEC, (Fixed(&[Ctl, Is(I64)])), Some(Ctl), Shape, Pure, "Lanes shifted left by the scalar; zero from the lane width on.";
    VLShr vlshr VEC, (Fixed(&[Ctl, Is(I64)])), Some(Ctl), Shape, Pure, "Lanes shifted right by the scalar; zero from the lane width on.";
    VAShr vashr VEC, (Fixed(&[Ctl, Is(I64)])), Some(Ctl), Shape, Pure, "Lanes shifted right by the scalar, signs coming in; counts of the width or more fill with the sign.";
    VShuffle vshuffle VEC, BIN, Some(Ctl), V128, Pure, "Byte i is byte mask[i] of a (0..15) or of b (16..31), or 0 (mask byte 0x80 and above).";
    VPackSS vpackss VEC, BIN, Some(Ctl), Shape, Pure, "a's then b's lanes of that shape narrowed with signed saturation (i16x8, i32x4).";
    VPackUS vpackus VEC, BIN, Some(Ctl), Shape, Pure, "The same, signed to unsigned saturation.";
    VMask vmask VEC, UN, Some(Is(I64)), Shape, Pure, "The lanes' sign bits, lane 0 in bit 0 (PMOVMSKB, MOVMSKPS, MOVMSKPD).";
    VSplat vsplat AnyType, UN, Some(Is(V128)), Shape, Pure, "a in every lane (a has the lane's type).";
    VGet vget AnyType, (Fixed(&[Is(V128)])), Some(Ctl), Lane, Pure, "That lane of a (the lane's type).";
    VSet vset AnyType, (Fixed(&[Is(V128), Ctl])), Some(Is(V128)), Lane, Pure, "a with that lane replaced by b.";
    VFromInt vfromint AnyType, UN, Some(Is(V128)), None, Pure, "a in the low bits, zeros above (i32, i64, f32, f64).";
    VIToF vitof VEC, UN, Some(Ctl), Shape, Float, "Signed i32 lanes to that float shape (f64x2: the low two).";
    VFToI vftoi VEC, UN, Some(Ctl), Shape, Float, "Lanes of that float shape to i32, by truncation, integer indefinite as in `ftoi` (f64x2: two, zeros above).";
    VFCvt vfcvt VEC, UN, Some(Ctl), Shape, Float, "To that float shape from the other one (f64x2: from the low two f32; f32x4: to the low two, zeros above).";

    // Control inside the region, checks and calls.
    Fuel fuel Only(I64), NONE, None, Count, MayExit, "Takes that many instructions from the fuel; if fewer are left, takes none and leaves the region before instruction `Inst::insn`.";
    Need need Only(I64), NONE, None, Count, MayExit, "If fewer instructions are left in the fuel, leaves the region before instruction `Inst::insn`; takes none.";
    Spend spend Only(I64), NONE, None, Count, WriteState, "Takes that many instructions from the fuel, which a `need` has found to hold them.";
    TrapIf trapif Only(I8), UN, None, Vector, MayExit, "Raises the exception (a fault of instruction `Inst::insn`, error code 0 where the vector has one) if a is not 0.";
    Call call AnyType, (Operands::Helper), Some(Ctl), Helper, Helper, "Calls the helper; its result. Helpers without result give an i64 0.";
    Br br Only(I8), (Operands::Branch), None, Target, Branch, "Goes to the block.";
    BrIf brif Only(I8), (Operands::Branch), None, Targets, Branch, "Goes to the first block if the condition is not 0, else to the second.";

    // Exits. Each writes RIP.
    Jump exit_jump Only(I64), NONE, None, Pc, Exit, "Direct jump.";
    JumpIf exit_jumpif Only(I8), UN, None, PcPair, Exit, "Direct jump to the first PC if a is not 0, else to the second.";
    CallTo exit_call Only(I64), NONE, None, PcPair, Exit, "Direct jump that is a CALL with that return PC (already pushed).";
    IJump exit_ijump Only(I64), UN, None, None, Exit, "Indirect jump to PC a.";
    ICall exit_icall Only(I64), UN, None, RetPc, Exit, "Indirect jump to PC a that is a CALL with that return PC (already pushed).";
    Ret exit_ret Only(I64), UN, None, None, Exit, "Indirect jump to PC a that is a RET (already popped).";
    Syscall exit_syscall Only(I64), NONE, None, Syscall, Exit, "System call; RIP is the next instruction.";
    Raise exit_raise Only(I64), NONE, None, Vector, Exit, "Fault: RIP is instruction `Inst::insn`; error code 0 where the vector has one.";
    OutOfFuel exit_fuel Only(I64), NONE, None, None, Exit, "Leaves because the fuel does not cover the block: reason `Fuel`, RIP is instruction `Inst::insn`.";
    Trap exit_trap Only(I64), NONE, None, Vector, Exit, "Trap: RIP is the instruction after `Inst::insn`.";
    Halt exit_halt Only(I64), NONE, None, None, Exit, "HLT; RIP is the next instruction.";
    Emulate exit_emulate Only(I64), NONE, None, None, Exit, "RIP is instruction `Inst::insn`, which the runtime must emulate alone (policy `trap`).";
    Resume exit_resume Only(I64), NONE, None, None, Exit, "Leaves after a helper that has set RIP or an exit reason itself.";
}

impl Op {
    /// True for ops that end a block.
    pub const fn is_terminator(self) -> bool {
        matches!(self.info().effect, Effect::Branch | Effect::Exit)
    }

    /// True for ops that leave the region.
    pub const fn is_exit(self) -> bool {
        matches!(self.info().effect, Effect::Exit)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

macro_rules! named_enum {
    ($(#[$meta:meta])* $ty:ident { $($variant:ident $name:literal $doc:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $ty { $(#[doc = $doc] $variant,)* }

        impl $ty {
            /// Every value, in declaration order.
            pub const ALL: &'static [$ty] = &[$($ty::$variant,)*];

            /// The name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($ty::$variant => $name,)* }
            }

            /// The value with that name.
            pub fn from_name(name: &str) -> Option<$ty> {
                match name { $($name => Some($ty::$variant),)* _ => None }
            }

            /// The value with that number in declaration order, as `Inst::imm` holds it.
            ///
            /// # Panics
            /// If there is none: the verifier excludes that.
            pub fn from_imm(n: u64) -> $ty {
                $ty::ALL[n as usize]
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_enum! {
    /// An integer comparison.
    IntCc {
        Eq "eq" "Equal.";
        Ne "ne" "Not equal.";
        Ult "ult" "Unsigned less.";
        Uge "uge" "Unsigned greater or equal.";
        Ule "ule" "Unsigned less or equal.";
        Ugt "ugt" "Unsigned greater.";
        Slt "slt" "Signed less.";
        Sge "sge" "Signed greater or equal.";
        Sle "sle" "Signed less or equal.";
        Sgt "sgt" "Signed greater.";
    }
}

named_enum! {
    /// A floating-point comparison, in the order of the CMPPS predicates 0 to 7.
    FloatCc {
        Eq "eq" "Equal, ordered.";
        Lt "lt" "Less, ordered.";
        Le "le" "Less or equal, ordered.";
        Uno "uno" "Unordered: one is a NaN.";
        Ne "ne" "Not equal, or unordered.";
        Nlt "nlt" "Not less, or unordered.";
        Nle "nle" "Not less or equal, or unordered.";
        Ord "ord" "Ordered: neither is a NaN.";
    }
}

named_enum! {
    /// What a memory access is for; the MMU and the page-fault error code need it.
    AccessKind {
        Data "data" "An operand of the instruction, with the rights of the current privilege.";
        Stack "stack" "A push or pop.";
        System "system" "A descriptor or task-state access, with supervisor rights.";
        Update "update" "A read of an operand that the instruction writes afterwards: it needs the right to write.";
    }
}

named_enum! {
    /// The operation of an `rmw`.
    RmwOp {
        Add "add" "old + b.";
        Sub "sub" "old - b.";
        And "and" "old and b.";
        Or "or" "old or b.";
        Xor "xor" "old xor b.";
        Xchg "xchg" "b.";
    }
}

named_enum! {
    /// How `ftoi` rounds.
    Round {
        Trunc "trunc" "Towards zero (CVTT…).";
        Mxcsr "mxcsr" "As MXCSR.RC says (CVT…).";
    }
}

named_enum! {
    /// Which instruction asks for a system call.
    SyscallKind {
        Syscall "syscall" "SYSCALL; RCX and R11 have been written.";
        Int80 "int80" "INT 0x80.";
        Sysenter "sysenter" "SYSENTER.";
    }
}

impl IntCc {
    /// The comparison that holds exactly when this one does not.
    pub const fn invert(self) -> IntCc {
        IntCc::ALL[self as usize ^ 1]
    }

    /// The comparison with its operands exchanged.
    pub const fn swap(self) -> IntCc {
        use IntCc::*;
        match self {
            Eq | Ne => self,
            Ult => Ugt,
            Ugt => Ult,
            Uge => Ule,
            Ule => Uge,
            Slt => Sgt,
            Sgt => Slt,
            Sge => Sle,
            Sle => Sge,
        }
    }

    /// The comparison of two integers of type `ty`, given zero-extended or with garbage above.
    pub fn holds(self, ty: Type, a: u64, b: u64) -> bool {
        let (ua, ub) = (a & ty.mask(), b & ty.mask());
        let shift = 64 - ty.bits();
        let (sa, sb) = ((a << shift) as i64, (b << shift) as i64);
        match self {
            IntCc::Eq => ua == ub,
            IntCc::Ne => ua != ub,
            IntCc::Ult => ua < ub,
            IntCc::Uge => ua >= ub,
            IntCc::Ule => ua <= ub,
            IntCc::Ugt => ua > ub,
            IntCc::Slt => sa < sb,
            IntCc::Sge => sa >= sb,
            IntCc::Sle => sa <= sb,
            IntCc::Sgt => sa > sb,
        }
    }
}
