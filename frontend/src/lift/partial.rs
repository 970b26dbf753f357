//! Instructions that change some of the arithmetic flags and keep the others: they read the old
//! flags and write a raw image.

use super::Lift;
use metaphrase_ir::flags::{ARITH, CF, OF};
use metaphrase_ir::{FlagKind, Type, Value};

impl Lift<'_> {
    /// The flag whose RFLAGS mask is `flag`, from bit 0 of an integer, in place.
    pub fn flag_bit(&mut self, v: Value, flag: u64) -> Value {
        let v = match self.ir.ty(v) {
            Type::I64 => v,
            _ => self.ir.zext(Type::I64, v),
        };
        let one = self.iconst(Type::I64, 1);
        let bit = self.ir.and(v, one);
        if flag == CF {
            return bit;
        }
        let shift = self.iconst(Type::I64, u64::from(flag.trailing_zeros()));
        self.ir.shl(bit, shift)
    }

    /// The flags in `keep` as they are now, every other bit 0.
    pub fn kept_flags(&mut self, keep: u64) -> Value {
        let old = self.ir.getflags();
        let mask = self.iconst(Type::I64, keep);
        self.ir.and(old, mask)
    }

    /// Sets the flags that `bits` gives, each from bit 0 of an integer; those in `keep` stay and
    /// the others are cleared.
    pub fn set_some_flags(&mut self, keep: u64, bits: &[(u64, Value)]) {
        let mut image = (keep != 0).then(|| self.kept_flags(keep));
        for &(flag, v) in bits {
            let bit = self.flag_bit(v, flag);
            image = Some(match image {
                Some(image) => self.ir.or(image, bit),
                None => bit,
            });
        }
        if let Some(image) = image {
            self.ir.setflags(FlagKind::Raw, &[image]);
        }
    }

    /// Sets CF and OF, each from bit 0; the others stay.
    pub fn set_cf_of(&mut self, cf: Value, of: Value) {
        self.set_cf_of_if(None, cf, of);
    }

    /// Sets CF and OF likewise if `changed` is not 0 (or not given).
    pub fn set_cf_of_if(&mut self, changed: Option<Value>, cf: Value, of: Value) {
        let old = self.ir.getflags();
        let keep = self.iconst(Type::I64, ARITH & !(CF | OF));
        let kept = self.ir.and(old, keep);
        let cf = self.flag_bit(cf, CF);
        let of = self.flag_bit(of, OF);
        let both = self.ir.or(cf, of);
        let new = self.ir.or(kept, both);
        let image = match changed {
            Some(changed) => self.ir.select(changed, new, old),
            None => new,
        };
        self.ir.setflags(FlagKind::Raw, &[image]);
    }

    /// Defines the flags by `kind` if `changed` is not 0 (or not given), and leaves them else.
    pub fn setflags_if(&mut self, changed: Option<Value>, kind: FlagKind, args: &[Value]) {
        let old = changed.map(|_| self.ir.getflags());
        self.ir.setflags(kind, args);
        if let (Some(changed), Some(old)) = (changed, old) {
            let new = self.ir.getflags();
            let image = self.ir.select(changed, new, old);
            self.ir.setflags(FlagKind::Raw, &[image]);
        }
    }
}
