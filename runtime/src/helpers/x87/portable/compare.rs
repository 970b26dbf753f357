//! FCOM, FUCOM, FTST.

use super::format::*;
use crate::helpers::x87::stack::{C0, C2, C3, IE};
use std::cmp::Ordering;

/// Compares; the status word. `quiet`: only signaling NaNs are invalid.
pub fn compare(a: Operand, b: Operand, quiet: bool) -> u16 {
    const UNORDERED: u16 = C0 | C2 | C3;
    if a.value == Value::Unsupported || b.value == Value::Unsupported {
        return UNORDERED | IE;
    }
    if a.value == Value::Nan || b.value == Value::Nan {
        let invalid = !quiet || a.signaling() || b.signaling();
        return UNORDERED | if invalid { IE } else { 0 };
    }
    let conditions = match order(&a).cmp(&order(&b)) {
        Ordering::Greater => 0,
        Ordering::Less => C0,
        Ordering::Equal => C3,
    };
    denormals([&a, &b], (a.bits, conditions)).1
}

/// A key that sorts as the numbers do.
fn order(o: &Operand) -> i128 {
    let magnitude = match o.value {
        Value::Zero => 0,
        Value::Finite(e, m) => (i128::from(e) + 0x1_0000) << 64 | i128::from(m),
        _ => 1 << 100,
    };
    if o.negative { -magnitude } else { magnitude }
}
