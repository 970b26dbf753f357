//! Bad code: random bytes and mutated instruction streams neither panic nor hang an engine.
//!
//! `METAPHRASE_STRINGS` sets how many strings in each code size and engine (10,000 unless set).

mod host;

use host::case::*;
use host::engine::{Engine, Kind};
use host::forms;
use host::rng::Rng;
use iced_x86::Code;

/// Longest string.
const LONGEST: u64 = 48;
/// Guest instructions that one string may run.
const BUDGET: u64 = 300;

fn strings() -> u64 {
    std::env::var("METAPHRASE_STRINGS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(10_000)
}

/// A string of bytes: random, or valid instructions with a few bytes changed.
fn bytes(rng: &mut Rng, mode: Mode, codes: &[Code]) -> Vec<u8> {
    let mut out = Vec::new();
    if rng.one_in(2) {
        let len = 1 + rng.below(LONGEST);
        out.extend((0..len).map(|_| rng.u64() as u8));
        return out;
    }
    while out.len() < 24 {
        if let Some(encoding) = forms::encode(rng, mode, rng.clone().pick(codes)) {
            out.extend(encoding.bytes);
        }
        rng.u64();
    }
    for _ in 0..rng.below(4) {
        let at = rng.below(out.len() as u64) as usize;
        match rng.below(3) {
            0 => out[at] = rng.u64() as u8,
            1 => out[at] ^= 1 << rng.below(8),
            _ => {
                out.remove(at);
            }
        }
    }
    out
}

fn survive(kind: Kind, mode: Mode) {
    let mut rng = Rng::new(0xbad ^ u64::from(mode.bits()));
    let codes: Vec<Code> = forms::forms(mode)
        .filter(|c| forms::class(*c) != forms::Class::NotYet)
        .filter(|c| forms::encode(&mut Rng::new(1), mode, *c).is_some())
        .collect();
    let mut engine = Engine::new(kind, mode);
    for _ in 0..strings() {
        let code = bytes(&mut rng, mode, &codes);
        // Now and then at the very end of what is mapped.
        let at = match rng.below(4) {
            0 => CODE_LEN as u64 - code.len() as u64,
            1 => 0x1000 - rng.below(code.len() as u64),
            _ => CODE_AT,
        };
        engine.load(at, &code);
        let gpr = std::array::from_fn(|_| match rng.below(3) {
            0 => rng.corner(),
            _ => DATA + rng.below(DATA_LEN as u64),
        });
        engine.start(at, gpr, rng.u64());
        let before = engine.vcpu.instructions();
        engine.go(BUDGET);
        let ran = engine.vcpu.instructions() - before;
        assert!(ran <= BUDGET, "{ran} instructions: {mode:?} {code:02x?}");
    }
}

macro_rules! survivors {
    ($($name:ident $kind:ident $mode:ident;)*) => {
        $(#[test] fn $name() { survive(Kind::$kind, Mode::$mode); })*
    };
}

survivors! {
    interp_16 Interp M16;
    interp_32 Interp M32;
    interp_64 Interp M64;
    jit_16 Jit M16;
    jit_32 Jit M32;
    jit_64 Jit M64;
}
