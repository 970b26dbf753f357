//! The values and operations that the portable core is tested with.

use super::super::super::ops::*;
use super::Call;
use crate::state::X87Reg;

/// xorshift64*.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    /// A significand: any bits, few ones, long runs, or halfway between two shorter ones.
    fn significand(&mut self) -> u64 {
        let top = 1 << 63;
        match self.below(8) {
            0 => top,
            1 => top | 1 << self.below(63),
            2 => !0 << self.below(64) | top,
            3 => top | (1u64 << self.below(63)).wrapping_sub(1),
            4 => top | self.next() << 40 | 1 << 39,
            5 => top | self.next() << 11 | 1 << 10,
            _ => top | self.next(),
        }
    }

    /// A register of any class.
    fn register(&mut self) -> X87Reg {
        let top = 1u64 << 63;
        let (mantissa, exponent) = match self.below(24) {
            0 => (0, 0),
            1 => (top, 0x7fff),
            // Quiet and signaling NaNs, pseudo-NaNs and pseudo-infinity, unnormals.
            2 => (0xc0 << 56 | self.next() >> 2, 0x7fff),
            3 => (top | self.next() >> 2 | 1, 0x7fff),
            4 => (self.next() >> (1 + self.below(64)).min(63), 0x7fff),
            5 => (self.next() >> 1, 1 + self.below(0x7ffe)),
            // Denormals and pseudo-denormals.
            6 => (self.next() >> (1 + self.below(63)), 0),
            7 => (top | self.next(), 0),
            // Anywhere.
            8 | 9 => (self.significand(), self.below(0x7fff)),
            // Near overflow, near underflow, near the ends of the narrower formats.
            10 => (self.significand(), 0x7ffe - self.below(70)),
            11 => (self.significand(), 1 + self.below(70)),
            12 => (self.significand(), 0x3fff - 0x3ff - 60 + self.below(64)),
            13 => (self.significand(), 0x3fff + 0x3fe + self.below(4)),
            14 => (self.significand(), 0x3fff - 0x7f - 30 + self.below(34)),
            15 => (self.significand(), 0x3fff + 0x7e + self.below(4)),
            // Around the limits of integers, and of packed decimal.
            16 => {
                let n =
                    [1u64 << 15, 1 << 31, 1 << 63, 999_999_999_999_999_999][self.below(4) as usize];
                let n = n.wrapping_add(self.below(5)).wrapping_sub(2);
                let shift = n.leading_zeros();
                (n << shift, 0x3fff + 63 - u64::from(shift))
            }
            // Small halves.
            17 => {
                let n = 1 + self.below(64);
                let shift = n.leading_zeros();
                (n << shift, 0x3fff + 62 - u64::from(shift))
            }
            // Around 1, and of middling size.
            18 => (self.significand(), 0x3ffe + self.below(3)),
            _ => (self.significand(), 0x3fff - 40 + self.below(110)),
        };
        X87Reg {
            mantissa,
            exponent: exponent | self.below(2) << 15,
        }
    }

    /// A register for the function: mostly in its domain.
    fn argument(&mut self, low: u64, span: u64) -> X87Reg {
        if self.below(4) == 0 {
            return self.register();
        }
        X87Reg {
            mantissa: self.significand(),
            exponent: (low + self.below(span)) | (self.below(2) << 15),
        }
    }

    fn source(&mut self) -> Source {
        let real = match self.below(8) {
            0 => 0,
            1 => 1.0f64.to_bits(),
            2 => 0x7ff0 << 48,
            3 => 0x7ff0 << 48 | self.next() >> 12,
            4 => self.next() >> (12 + self.below(52)),
            5 => (self.below(1000) as f64 / 2.0).to_bits(),
            _ => self.next(),
        };
        let sign = self.below(2);
        match self.below(6) {
            0 => Source::F64(real ^ sign << 63),
            1 => {
                let narrow = match self.below(3) {
                    0 => (f64::from_bits(real) as f32).to_bits(),
                    1 => self.next() as u32 >> (9 + self.below(23)),
                    _ => (real >> 32) as u32,
                };
                Source::F32(narrow ^ (sign as u32) << 31)
            }
            2 => Source::I16((self.next() >> self.below(64)) as i16),
            3 => Source::I32((self.next() >> self.below(64)) as i32),
            _ => Source::Reg(self.register()),
        }
    }

    /// A control word that masks what the callers mask.
    pub fn control(&mut self) -> u16 {
        let precision = [0, 0x200, 0x300, 0x300][self.below(4) as usize];
        let masks = if self.below(3) == 0 {
            self.next() as u16 & 0x38
        } else {
            0x38
        };
        0x47 | masks | precision | (self.below(4) as u16) << 10
    }

    pub fn call(&mut self) -> Call {
        match self.below(20) {
            0..=5 => {
                let op = ARITH[self.below(6) as usize];
                let a = self.register();
                let b = match self.source() {
                    // Often near the other operand.
                    Source::Reg(b) if self.below(2) == 0 => Source::Reg(X87Reg {
                        exponent: a.exponent.wrapping_add(self.below(140)).wrapping_sub(70)
                            & 0x7fff
                            | b.exponent & 0x8000,
                        mantissa: if self.below(4) == 0 {
                            a.mantissa
                        } else {
                            b.mantissa
                        },
                    }),
                    b => b,
                };
                Call::Arith(op, a, b)
            }
            6 => {
                let a = self.register();
                let b = if self.below(4) == 0 {
                    Source::Reg(a)
                } else {
                    self.source()
                };
                Call::Compare(a, b, matches!(b, Source::Reg(_)) && self.below(2) == 0)
            }
            7 => match self.below(4) {
                0 => Call::Test(self.register()),
                1 => Call::Constant(self.below(6) as u8),
                _ => loop {
                    let s = self.source();
                    if matches!(s, Source::F32(_) | Source::F64(_)) {
                        return Call::Load(s);
                    }
                },
            },
            8 => {
                let mut bytes = [0; 10];
                let digits = self.below(10) as usize;
                for b in &mut bytes[..digits] {
                    *b = (self.below(10) << 4 | self.below(10)) as u8;
                }
                bytes[9] = (self.below(2) << 7) as u8;
                Call::LoadBcd(bytes)
            }
            9 => Call::StoreF32(self.register()),
            10 => Call::StoreF64(self.register()),
            11 => Call::StoreInt(self.register(), [2, 4, 8][self.below(3) as usize]),
            12 => Call::StoreBcd(self.register()),
            13 => Call::Unary(Unary::Sqrt, self.register()),
            14 => Call::Unary(Unary::RndInt, self.register()),
            15 => {
                let by = self.argument(0x3ffe, 18);
                Call::Binary(Binary::Scale, self.register(), by)
            }
            16 | 17 => {
                let op = [Binary::Prem, Binary::Prem1][self.below(2) as usize];
                let (a, mut b) = (self.register(), self.register());
                if self.below(4) != 0 {
                    let e = a.exponent.wrapping_sub(self.below(80)).wrapping_add(4);
                    b.exponent = b.exponent & 0x8000 | e & 0x7fff;
                }
                Call::Binary(op, a, b)
            }
            18 => Call::Pair(Pair::Xtract, self.register()),
            _ => self.transcendental(),
        }
    }

    pub fn transcendental(&mut self) -> Call {
        let angle = (0x3fff - 70, 135);
        match self.below(8) {
            0 => Call::Unary(Unary::F2xm1, self.argument(0x3fff - 70, 71)),
            1 => Call::Unary(Unary::Sin, self.argument(angle.0, angle.1)),
            2 => Call::Unary(Unary::Cos, self.argument(angle.0, angle.1)),
            3 => Call::Pair(Pair::SinCos, self.argument(angle.0, angle.1)),
            4 => Call::Pair(Pair::Ptan, self.argument(angle.0, angle.1)),
            5 => {
                let x = self.register();
                Call::Binary(Binary::Yl2x, x, self.register())
            }
            6 => {
                let x = self.argument(0x3fff - 70, 72);
                Call::Binary(Binary::Yl2xp1, x, self.register())
            }
            _ => {
                let (x, mut y) = (self.register(), self.register());
                if self.below(2) == 0 {
                    let e = x.exponent.wrapping_add(self.below(12)).wrapping_sub(6);
                    y.exponent = y.exponent & 0x8000 | e & 0x7fff;
                }
                Call::Binary(Binary::Patan, x, y)
            }
        }
    }
}

const ARITH: [Arith; 6] = [
    Arith::Add,
    Arith::Mul,
    Arith::Sub,
    Arith::SubR,
    Arith::Div,
    Arith::DivR,
];

/// Telling values, positive.
pub fn corners() -> Vec<X87Reg> {
    const T: u64 = 1 << 63;
    let list: [(u64, u64); 32] = [
        (0, 0),
        (0, 1),
        (0, T >> 1),
        (0, T - 1),
        (0, T),
        (0, !0),
        (1, T),
        (1, !0),
        (2, T),
        (65, T | 1),
        (0x1fff, T | 3),
        (0x3f80, !0),
        (0x3fbf, T),
        (0x3ffe, T),
        (0x3ffe, !0),
        (0x3fff, T),
        (0x3fff, T | 1),
        (0x3fff, T | T >> 1),
        (0x3fff, T | 0x400),
        (0x3fff, T | 1 << 39),
        (0x4000, 0xc90f_daa2_2168_c235),
        (0x401d, 0xffff_ffff << 32),
        (0x403e, T),
        (0x407f, T),
        (0x6000, T | 5),
        (0x7ffe, T),
        (0x7ffe, !0),
        (0x7fff, T),
        (0x7fff, T | 1),
        (0x7fff, T | T >> 1),
        (0x7fff, !0),
        (0x5000, T >> 1),
    ];
    let sign = |s: u64| {
        list.map(|(e, mantissa)| X87Reg {
            mantissa,
            exponent: e | s,
        })
    };
    [sign(0), sign(0x8000)].concat()
}

/// Every precision and rounding control, masked and not.
pub fn controls() -> Vec<u16> {
    let mut all = Vec::new();
    for precision in [0, 0x200, 0x300] {
        for rounding in 0..4 {
            for masks in [0x38, 0] {
                all.push(0x47 | masks | precision | rounding << 10);
            }
        }
    }
    all
}
