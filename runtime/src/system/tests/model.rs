//! A slow, literal reading of the manual's pseudo-code, with no regard for the implementation: it
//! looks at copies of the tables and says what an instruction must do.

/// What the model looks at.
pub struct Model {
    /// The bytes of the GDT up to its limit.
    pub gdt: Vec<u8>,
    /// The bytes of the LDT; `None` if LDTR is null.
    pub ldt: Option<Vec<u8>>,
    /// The current privilege level.
    pub cpl: u64,
    /// EFER.LMA.
    pub ia32e: bool,
    /// 64-bit code.
    pub bits64: bool,
}

/// A fault: vector and error code.
pub type Refusal = (u8, u32);

const GP: u8 = 13;
const SS: u8 = 12;
const NP: u8 = 11;

/// A descriptor, field by field.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub base: u64,
    pub limit: u64,
    pub kind: u64,
    pub s: bool,
    pub dpl: u64,
    pub p: bool,
    pub l: bool,
    pub db: bool,
    pub bytes: [u8; 8],
}

impl Fields {
    fn parse(b: [u8; 8]) -> Fields {
        let b64 = b.map(u64::from);
        let mut limit = b64[0] + b64[1] * 256 + (b64[6] % 16) * 65536;
        if b64[6] >= 128 {
            limit = limit * 4096 + 4095;
        }
        Fields {
            base: b64[2] + b64[3] * 256 + b64[4] * 65536 + b64[7] * 16_777_216,
            limit,
            kind: b64[5] % 16,
            s: b64[5] / 16 % 2 == 1,
            dpl: b64[5] / 32 % 4,
            p: b64[5] >= 128,
            l: b64[6] / 32 % 2 == 1,
            db: b64[6] / 64 % 2 == 1,
            bytes: b,
        }
    }

    fn code(&self) -> bool {
        self.s && self.kind >= 8
    }

    fn data(&self) -> bool {
        self.s && self.kind < 8
    }

    fn conforming_code(&self) -> bool {
        self.code() && [12, 13, 14, 15].contains(&self.kind)
    }

    fn nonconforming_code(&self) -> bool {
        self.code() && !self.conforming_code()
    }

    fn readable_code(&self) -> bool {
        [10, 11, 14, 15].contains(&self.kind) && self.s
    }

    fn writable_data(&self) -> bool {
        [2, 3, 6, 7].contains(&self.kind) && self.s
    }
}

/// What a load puts into a segment register, or where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// A null selector.
    Null,
    /// Base, limit and access byte with the accessed bit set.
    Segment(u64, u64, u8),
}

/// What a far jump does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Jump {
    /// CS selector and RIP.
    To(u16, u64),
    /// A task switch to the TSS with that selector.
    Task(u16),
}

fn index(selector: u16) -> usize {
    usize::from(selector) / 8 * 8
}

fn error(selector: u16) -> u32 {
    u32::from(selector) / 4 * 4
}

impl Model {
    fn table(&self, selector: u16) -> Option<&[u8]> {
        if selector / 4 % 2 == 1 {
            self.ldt.as_deref()
        } else {
            Some(&self.gdt)
        }
    }

    /// The descriptor; `None` if the selector index is not within its table.
    pub fn find(&self, selector: u16) -> Option<Fields> {
        let bytes = self
            .table(selector)?
            .get(index(selector)..index(selector) + 8)?;
        Some(Fields::parse(bytes.try_into().unwrap()))
    }

    /// The eight bytes behind, of a descriptor of 16.
    pub fn find_upper(&self, selector: u16) -> Option<[u8; 8]> {
        let at = index(selector) + 8;
        let bytes = self.table(selector)?.get(at..at + 8)?;
        Some(bytes.try_into().unwrap())
    }

    /// MOV to SS, DS, ES, FS, GS in protected mode (SDM volume 2, MOV, "Operation").
    pub fn load(&self, ss: bool, selector: u16) -> Result<Loaded, Refusal> {
        let rpl = u64::from(selector % 4);
        let null = selector / 4 == 0;
        if ss {
            if null {
                if self.bits64 && self.cpl != 3 && rpl == self.cpl {
                    return Ok(Loaded::Null);
                }
                return Err((GP, 0));
            }
            let Some(d) = self.find(selector) else {
                return Err((GP, error(selector)));
            };
            if rpl != self.cpl || !d.writable_data() || d.dpl != self.cpl {
                return Err((GP, error(selector)));
            }
            if !d.p {
                return Err((SS, error(selector)));
            }
            return Ok(Loaded::Segment(d.base, d.limit, d.bytes[5] | 1));
        }
        if null {
            return Ok(Loaded::Null);
        }
        let Some(d) = self.find(selector) else {
            return Err((GP, error(selector)));
        };
        if !(d.data() || d.readable_code()) {
            return Err((GP, error(selector)));
        }
        if (d.data() || d.nonconforming_code()) && (rpl > d.dpl || self.cpl > d.dpl) {
            return Err((GP, error(selector)));
        }
        if !d.p {
            return Err((NP, error(selector)));
        }
        Ok(Loaded::Segment(d.base, d.limit, d.bytes[5] | 1))
    }

    /// LAR, LSL, VERR, VERW: the value if ZF is set.
    pub fn info(&self, which: u8, selector: u16) -> Option<u64> {
        if selector / 4 == 0 {
            return None;
        }
        let d = self.find(selector)?;
        let rpl = u64::from(selector % 4);
        if !d.conforming_code() && (self.cpl > d.dpl || rpl > d.dpl) {
            return None;
        }
        let system = |legacy: &[u64], ia32e: &[u64]| {
            let allowed = if self.ia32e { ia32e } else { legacy };
            d.s || allowed.contains(&d.kind)
        };
        match which {
            0 => {
                let known = system(&[1, 2, 3, 4, 5, 9, 11, 12], &[2, 9, 11, 12]);
                let second = u32::from_le_bytes(d.bytes[4..].try_into().unwrap());
                known.then_some(u64::from(second & 0x00f0_ff00))
            }
            1 => system(&[1, 2, 3, 9, 11], &[2, 9, 11]).then_some(d.limit),
            2 => (d.data() || d.readable_code()).then_some(0),
            _ => d.writable_data().then_some(0),
        }
    }

    /// The checks of a code segment's offset, common to all far jumps.
    fn arrive(&self, d: &Fields, cs: u16, rip: u64) -> Result<Jump, Refusal> {
        let refused = if self.ia32e && d.l {
            // Bits 47 to 63 must be equal.
            ![0, 0x1_ffff].contains(&(rip >> 47))
        } else {
            rip > d.limit
        };
        if refused {
            return Err((GP, 0));
        }
        Ok(Jump::To(cs / 4 * 4 + self.cpl as u16, rip))
    }

    /// JMP far in protected mode (SDM volume 2, JMP, "FAR-JUMPS"): a direct one at an operand size
    /// of that many bytes.
    pub fn jump(&self, size: u8, selector: u16, offset: u64) -> Result<Jump, Refusal> {
        if selector / 4 == 0 {
            return Err((GP, 0));
        }
        let rpl = u64::from(selector % 4);
        let Some(d) = self.find(selector) else {
            return Err((GP, error(selector)));
        };
        let offset = match size {
            2 => offset % 0x1_0000,
            4 => offset % 0x1_0000_0000,
            _ => offset,
        };
        let both = self.ia32e && d.l && d.db;
        if d.conforming_code() {
            if both || d.dpl > self.cpl {
                return Err((GP, error(selector)));
            }
            if !d.p {
                return Err((NP, error(selector)));
            }
            return self.arrive(&d, selector, offset);
        }
        if d.nonconforming_code() {
            if both || rpl > self.cpl || d.dpl != self.cpl {
                return Err((GP, error(selector)));
            }
            if !d.p {
                return Err((NP, error(selector)));
            }
            return self.arrive(&d, selector, offset);
        }
        if d.s {
            return Err((GP, error(selector)));
        }
        match (d.kind, self.ia32e) {
            (12, _) | (4, false) => self.jump_gate(&d, selector),
            (5, false) => {
                if d.dpl < self.cpl || d.dpl < rpl {
                    return Err((GP, error(selector)));
                }
                if !d.p {
                    return Err((NP, error(selector)));
                }
                let tss = u16::from_le_bytes([d.bytes[2], d.bytes[3]]);
                if tss / 4 % 2 == 1 {
                    return Err((GP, error(tss)));
                }
                if tss / 4 == 0 {
                    return Err((GP, 0));
                }
                let Some(d) = self.find(tss) else {
                    return Err((GP, error(tss)));
                };
                if d.s || !(d.kind == 1 || d.kind == 9) {
                    return Err((GP, error(tss)));
                }
                if !d.p {
                    return Err((NP, error(tss)));
                }
                Ok(Jump::Task(tss))
            }
            (1 | 9, false) => {
                if selector / 4 % 2 == 1 || d.dpl < self.cpl || d.dpl < rpl {
                    return Err((GP, error(selector)));
                }
                if !d.p {
                    return Err((NP, error(selector)));
                }
                Ok(Jump::Task(selector))
            }
            _ => Err((GP, error(selector))),
        }
    }

    fn jump_gate(&self, d: &Fields, selector: u16) -> Result<Jump, Refusal> {
        let rpl = u64::from(selector % 4);
        let mut upper = [0; 8];
        if self.ia32e {
            upper = match self.find_upper(selector) {
                Some(upper) if upper[5] % 32 == 0 => upper,
                _ => return Err((GP, error(selector))),
            };
        }
        if d.dpl < self.cpl || d.dpl < rpl {
            return Err((GP, error(selector)));
        }
        if !d.p {
            return Err((NP, error(selector)));
        }
        let cs = u16::from_le_bytes([d.bytes[2], d.bytes[3]]);
        if cs / 4 == 0 {
            return Err((GP, 0));
        }
        let Some(code) = self.find(cs) else {
            return Err((GP, error(cs)));
        };
        let right = code.code()
            && (!self.ia32e || code.l && !code.db)
            && (!code.conforming_code() || code.dpl <= self.cpl)
            && (!code.nonconforming_code() || code.dpl == self.cpl);
        if !right {
            return Err((GP, error(cs)));
        }
        if !code.p {
            return Err((NP, error(cs)));
        }
        let b = d.bytes.map(u64::from);
        let mut rip = b[0] + b[1] * 256;
        if d.kind == 12 {
            rip += b[6] * 65536 + b[7] * 16_777_216;
        }
        if self.ia32e {
            let high = u32::from_le_bytes(upper[..4].try_into().unwrap());
            rip += u64::from(high) << 32;
        }
        self.arrive(&code, cs, rip)
    }
}

impl Model {
    /// A TSS whose limit is too small for its type (SDM volume 3, 7.3).
    pub fn short_task(&self, tss: u16) -> Option<Refusal> {
        const TS: u8 = 10;
        let d = self.find(tss)?;
        let least = if d.kind >= 8 { 0x67 } else { 0x2b };
        (d.limit < least).then_some((TS, error(tss)))
    }
}
