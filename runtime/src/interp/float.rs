//! Handlers of floating-point ops: each runs the host's own instruction, or its portable
//! replacement, under the guest's MXCSR (see [`metaphrase_backend::sse`]).

use super::code::{Context, Handler, Ins, Int, put, rd, state};
use metaphrase_backend::sse::Prepared;
use metaphrase_ir::{FloatCc, Helper, Inst, Op, Region, Type};

/// Operands and results as they lie in slots.
trait Slot: Copy {
    fn wide(self) -> u128;
    /// # Safety
    /// The slot lies in the state at `st`, and holds the value's type.
    unsafe fn write(st: *mut u8, slot: u16, value: u128);
}

macro_rules! slots {
    ($($ty:ident)*) => {$(
        impl Slot for $ty {
            #[inline(always)]
            fn wide(self) -> u128 {
                self.into()
            }
            #[inline(always)]
            unsafe fn write(st: *mut u8, slot: u16, value: u128) {
                // SAFETY: handed on.
                unsafe { put::<u64>(st, slot, Int::wide(value as $ty)) }
            }
        }
    )*};
}

slots! { u8 u32 u64 }

impl Slot for u128 {
    #[inline(always)]
    fn wide(self) -> u128 {
        self
    }
    #[inline(always)]
    unsafe fn write(st: *mut u8, slot: u16, value: u128) {
        // SAFETY: handed on.
        unsafe { put::<u128>(st, slot, value) }
    }
}

/// `d = a op b`; the operation is the word in `imm`.
unsafe fn float<A: Slot, R: Slot>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`; the emitter made the word.
    unsafe {
        let i = &*ip;
        let (a, b) = (rd::<A>(st, i.a).wide(), rd::<A>(st, i.b).wide());
        let r = Prepared::from_word(i.imm).run(a, b, &mut (*state(st)).mxcsr);
        R::write(st, i.d, r);
        ip.add(1)
    }
}

/// The same for the exception flags only.
unsafe fn signal<A: Slot>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: as for `float`.
    unsafe {
        let i = &*ip;
        let (a, b) = (rd::<A>(st, i.a).wide(), rd::<A>(st, i.b).wide());
        Prepared::from_word(i.imm).run(a, b, &mut (*state(st)).mxcsr);
        ip.add(1)
    }
}

/// `d` = whether comparison `CC` of `a` and `b` holds.
unsafe fn compare<A: Slot, const CC: usize>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: as for `float`.
    unsafe {
        let i = &*ip;
        let (a, b) = (rd::<A>(st, i.a).wide(), rd::<A>(st, i.b).wide());
        let image = Prepared::from_word(i.imm).run(a, b, &mut (*state(st)).mxcsr) as u64;
        put::<u64>(st, i.d, u64::from(holds(FloatCc::ALL[CC], image)));
        ip.add(1)
    }
}

/// What COMIS's image of ZF, PF and CF says about a comparison.
fn holds(cc: FloatCc, image: u64) -> bool {
    let unordered = image & 4 != 0;
    let equal = image & 0x40 != 0 && !unordered;
    let less = image & 1 != 0 && !unordered;
    match cc {
        FloatCc::Eq => equal,
        FloatCc::Lt => less,
        FloatCc::Le => less || equal,
        FloatCc::Uno => unordered,
        FloatCc::Ne => !equal,
        FloatCc::Nlt => !less,
        FloatCc::Nle => !(less || equal),
        FloatCc::Ord => !unordered,
    }
}

fn comparing<A: Slot>(cc: FloatCc) -> Handler {
    match cc {
        FloatCc::Eq => compare::<A, 0>,
        FloatCc::Lt => compare::<A, 1>,
        FloatCc::Le => compare::<A, 2>,
        FloatCc::Uno => compare::<A, 3>,
        FloatCc::Ne => compare::<A, 4>,
        FloatCc::Nlt => compare::<A, 5>,
        FloatCc::Nle => compare::<A, 6>,
        FloatCc::Ord => compare::<A, 7>,
    }
}

/// The handler of a floating-point op whose first operand has type `from`.
pub(super) fn handler(inst: &Inst, from: Type) -> Handler {
    use Type::{F32, I32, V128};
    let narrow = |ty| matches!(ty, F32 | I32);
    match inst.op {
        Op::FSignal if narrow(from) => signal::<u32>,
        Op::FSignal => signal::<u64>,
        Op::FCmp => {
            let cc = FloatCc::from_imm(inst.imm);
            if narrow(from) {
                comparing::<u32>(cc)
            } else {
                comparing::<u64>(cc)
            }
        }
        _ if from == V128 => float::<u128, u128>,
        _ => match (narrow(from), narrow(inst.ty)) {
            (true, true) => float::<u32, u32>,
            (true, false) => float::<u32, u64>,
            (false, true) => float::<u64, u32>,
            (false, false) => float::<u64, u64>,
        },
    }
}

/// Whether anything in the region works on MXCSR: then the guest's must be in force while its
/// program runs.
pub(super) fn uses_mxcsr(region: &Region) -> bool {
    use Helper::*;
    let helpers = [
        Fxrstor,
        Fxsave,
        Xsave,
        Xrstor,
        Xgetbv,
        Ldmxcsr,
        SseChecked,
        SseDeferred,
        SseFloat,
        Fma,
        FmaChecked,
        HalfFloat,
        HalfFloatChecked,
        Stmxcsr,
    ];
    let mut all = region.blocks.iter().flat_map(|b| &b.insts);
    all.any(|&v| {
        let inst = region.inst(v);
        inst.sets_mxcsr()
            || inst.op == Op::FCmp
            || inst.op == Op::Call && helpers.contains(&Helper::from_imm(inst.imm))
    })
}
