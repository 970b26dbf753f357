//! A small seeded random generator: the same seed gives the same cases on every machine.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A uniform 64-bit value.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A uniform value below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.u64() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A uniform element of a non-empty slice.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A value that is often a corner case of some operand size.
    pub fn corner(&mut self) -> u64 {
        let bits = self.pick(&[8u32, 16, 32, 64]);
        let mask = u64::MAX >> (64 - bits);
        let value = match self.below(10) {
            0 => 0,
            1 => 1,
            2 => mask,
            3 => 1 << (bits - 1),
            4 => mask >> 1,
            5 => 1 << self.below(64),
            6 => self.below(256),
            _ => self.u64(),
        };
        match self.below(8) {
            0 => value | self.u64() & !mask,
            1 => value.wrapping_neg(),
            2 => value.wrapping_add(self.below(5)).wrapping_sub(2),
            _ => value,
        }
    }

    /// 64 bits of a vector register: an integer, a double or two singles, often corner cases.
    pub fn lanes(&mut self) -> u64 {
        match self.below(3) {
            0 => self.corner(),
            1 => self.double(),
            _ => u64::from(self.single()) << 32 | u64::from(self.single()),
        }
    }

    /// A double: zeros, infinities, NaNs, denormals, and numbers about the limits of the integers.
    pub fn double(&mut self) -> u64 {
        let sign = self.below(2) << 63;
        sign | match self.below(10) {
            0 => 0,
            1 => f64::INFINITY.to_bits(),
            2 => 0x7ff8 << 48 | self.below(1 << 51),
            3 => (0x7ff0 << 48) | (1 + self.below((1 << 51) - 1)),
            4 => self.below(1 << 52),
            5 => f64::MAX.to_bits() - self.below(4),
            6 => (self.below(17) as f64 / 4.0).to_bits(),
            7 => (2f64
                .powi(self.pick(&[23, 24, 31, 32, 52, 53, 63, 64]))
                .to_bits())
            .wrapping_add(self.below(5))
            .wrapping_sub(2),
            8 => (0x3ff + self.below(66) - 1) << 52 | self.below(1 << 52),
            _ => (self.below(1 << 32) as f64 / 2.0).to_bits(),
        }
    }

    /// A single, likewise.
    pub fn single(&mut self) -> u32 {
        let sign = (self.below(2) as u32) << 31;
        sign | match self.below(10) {
            0 => 0,
            1 => f32::INFINITY.to_bits(),
            2 => 0x7fc0_0000 | self.below(1 << 22) as u32,
            3 => 0x7f80_0000 | (1 + self.below((1 << 22) - 1) as u32),
            4 => self.below(1 << 23) as u32,
            5 => f32::MAX.to_bits() - self.below(4) as u32,
            6 => (self.below(17) as f32 / 4.0).to_bits(),
            7 => (2f32
                .powi(self.pick(&[15, 16, 23, 24, 31, 32, 63, 64]))
                .to_bits())
            .wrapping_add(self.below(5) as u32)
            .wrapping_sub(2),
            8 => (0x7f + self.below(66) as u32 - 1) << 23 | self.below(1 << 23) as u32,
            _ => (self.below(1 << 24) as f32 / 2.0).to_bits(),
        }
    }
}
