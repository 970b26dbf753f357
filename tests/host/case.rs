//! What one test case is: an instruction, the state before it, and the state after it.
//!
//! The host oracle and every engine see the same little world, at the same guest-linear
//! addresses:
//!
//! ```text
//! WINDOW + 0x8000  four data pages, readable and writable      (DATA)
//!        + 0xc000  one page that is read only
//!        + 0xd000  nothing
//! CODE             two pages of INT3 into which the instruction is written; nothing around them
//! ```
//!
//! An instruction that completes runs into an INT3 or, if it branched away, into a page that is
//! not there. Both say where it went without executing anything else.

/// Start of the 64 KiB that a 16-bit DS can address.
pub const WINDOW: u64 = 0x1000_0000;
/// First data page.
pub const DATA: u64 = WINDOW + 0x8000;
/// Bytes of writable data.
pub const DATA_RW: usize = 0x4000;
/// Bytes of data, the read-only page included.
pub const DATA_LEN: usize = DATA_RW + 0x1000;
/// First code page.
pub const CODE: u64 = 0x2000_0000;
/// Bytes of code pages.
pub const CODE_LEN: usize = 0x2000;
/// Where an instruction lies in the code pages unless the case wants it elsewhere.
pub const CODE_AT: u64 = 0x800;

/// Base of FS in every mode.
pub const FS_BASE: u64 = WINDOW + 0x350;
/// Base of GS in every mode.
pub const GS_BASE: u64 = WINDOW + 0x480;
/// Base of DS in 16-bit code.
pub const DS16_BASE: u64 = WINDOW;
/// Base of ES in 16-bit code.
pub const ES16_BASE: u64 = WINDOW + 0x240;
/// Base of SS in 16-bit code.
pub const SS16_BASE: u64 = WINDOW + 0x130;

/// The six arithmetic flags.
pub const ARITH: u64 = 0x8d5;
/// RFLAGS.DF.
pub const DF: u64 = 0x400;
/// The flags that are compared: arithmetic, DF, NT, AC, ID. A case can start with the first seven.
pub const FLAGS: u64 = ARITH | DF | 0x4000 | 0x4_0000 | 0x20_0000;

/// The size of the code segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u32)]
pub enum Mode {
    /// 16-bit code, data and stack segments with different bases.
    M16 = 16,
    /// 32-bit code, flat segments but FS and GS.
    M32 = 32,
    /// 64-bit code.
    M64 = 64,
}

impl Mode {
    /// All three.
    pub const ALL: [Mode; 3] = [Mode::M16, Mode::M32, Mode::M64];

    /// 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        self as u32
    }

    /// The bits of a general register that exist in this mode.
    pub const fn gpr_mask(self) -> u64 {
        match self {
            Mode::M64 => u64::MAX,
            _ => 0xffff_ffff,
        }
    }

    /// The bases of ES, CS, SS, DS, FS and GS.
    pub const fn seg_bases(self) -> [u64; 6] {
        match self {
            Mode::M16 => [ES16_BASE, 0, SS16_BASE, DS16_BASE, FS_BASE, GS_BASE],
            _ => [0, 0, 0, 0, FS_BASE, GS_BASE],
        }
    }

    /// Linear address of the code pages in our engines. They run 16-bit code with CS based at 0;
    /// on the host its base is [`CODE`], because nothing can be mapped so low there. No case can
    /// tell: CS overrides are not among them.
    pub const fn engine_code(self) -> u64 {
        match self {
            Mode::M16 => 0,
            _ => CODE,
        }
    }

    /// The instruction pointer at `at` bytes into the code pages.
    pub const fn ip(self, at: u64) -> u64 {
        match self {
            Mode::M16 => at,
            _ => CODE + at,
        }
    }
}

/// The x87 and MMX registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// The significands of the physical registers: MM0 to MM7.
    pub mm: [u64; 8],
    /// Their signs and exponents.
    pub exponent: [u16; 8],
    /// The control word.
    pub control: u16,
    /// The status word.
    pub status: u16,
    /// One bit a physical register that is in use.
    pub tags: u16,
}

impl Fpu {
    /// After FNINIT.
    pub const INIT: Fpu = Fpu {
        mm: [0; 8],
        exponent: [0; 8],
        control: 0x37f,
        status: 0,
        tags: 0,
    };

    /// TOP.
    pub const fn top(&self) -> usize {
        self.status as usize >> 11 & 7
    }
}

/// One store into the data area before the case runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poke {
    /// Offset from [`DATA`].
    pub offset: u32,
    /// Bytes to store, 0 to 8.
    pub len: u32,
    /// The value, little-endian.
    pub value: u64,
}

/// One instruction and the state before it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// RFLAGS; only [`ARITH`] and [`DF`] count.
    pub rflags: u64,
    /// Offset of the instruction in the code pages.
    pub at: u64,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// The upper halves of YMM0 to YMM15.
    pub ymm_hi: [u128; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// The x87 state.
    pub fpu: Fpu,
    /// Code size.
    pub mode: Mode,
    /// The instruction's bytes.
    pub code: [u8; 24],
    /// How many of them.
    pub len: u64,
    /// Stores into the data area, done in order.
    pub pokes: [Poke; 4],
}

impl Case {
    /// A case for some bytes in an otherwise zero state.
    pub fn new(mode: Mode, bytes: &[u8]) -> Case {
        let mut code = [0; 24];
        code[..bytes.len()].copy_from_slice(bytes);
        Case {
            gpr: [0; 16],
            rflags: 0,
            at: CODE_AT,
            xmm: [0; 16],
            ymm_hi: [0; 16],
            mxcsr: 0x1f80,
            fpu: Fpu::INIT,
            mode,
            code,
            len: bytes.len() as u64,
            pokes: [Poke::default(); 4],
        }
    }

    /// The instruction's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.code[..self.len as usize]
    }

    /// The instruction pointer.
    pub fn ip(&self) -> u64 {
        self.mode.ip(self.at)
    }

    /// Does the pokes in an image of the data area.
    pub fn poke(&self, data: &mut [u8]) {
        for p in &self.pokes {
            let at = p.offset as usize;
            data[at..at + p.len as usize].copy_from_slice(&p.value.to_le_bytes()[..p.len as usize]);
        }
    }
}

/// A word of the data area that changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Offset from [`DATA`], a multiple of 8.
    pub offset: u64,
    /// The word afterwards.
    pub value: u64,
}

/// The most changed words that an outcome can hold.
pub const MAX_WRITES: usize = 48;

/// [`Outcome::trap`] of an instruction that completed.
pub const COMPLETED: u32 = 0x100;
/// [`Outcome::trap`] of an instruction that did not come to an end.
pub const HANG: u32 = 0x101;

/// [`Outcome::trap`] of an instruction that wrote into the code pages: the generator is wrong.
pub const CODE_WRITTEN: u32 = 0x102;

/// The state after an instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// The instruction pointer: of the next instruction, or of this one if it faulted.
    pub rip: u64,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// The upper halves of YMM0 to YMM15.
    pub ymm_hi: [u128; 16],
    /// The x87 state.
    pub fpu: Fpu,
    /// MXCSR.
    pub mxcsr: u32,
    /// The exception's vector, or [`COMPLETED`], or [`HANG`].
    pub trap: u32,
    /// The exception's error code, 0 if none.
    pub error: u64,
    /// The address of a page fault, otherwise 0.
    pub address: u64,
    /// How many words of the data area changed; more than [`MAX_WRITES`] are not listed.
    pub changed: u64,
    /// The words that changed, in order.
    pub writes: [Write; MAX_WRITES],
}

impl Outcome {
    /// An outcome with nothing in it.
    pub const EMPTY: Outcome = Outcome {
        gpr: [0; 16],
        rflags: 0,
        rip: 0,
        xmm: [0; 16],
        ymm_hi: [0; 16],
        fpu: Fpu::INIT,
        mxcsr: 0,
        trap: HANG,
        error: 0,
        address: 0,
        changed: 0,
        writes: [Write {
            offset: 0,
            value: 0,
        }; MAX_WRITES],
    };

    /// The listed writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes[..(self.changed as usize).min(MAX_WRITES)]
    }

    /// Lists the words in which `after` differs from `before`.
    ///
    /// The oracle calls this inside a signal handler: it must not allocate or panic.
    pub fn record_writes(&mut self, before: &[u64], after: &[u64]) {
        let mut n = 0usize;
        for (i, (b, a)) in before.iter().zip(after).enumerate() {
            if a != b {
                if let Some(slot) = self.writes.get_mut(n) {
                    *slot = Write {
                        offset: (i as u64).wrapping_mul(8),
                        value: *a,
                    };
                }
                n = n.wrapping_add(1);
            }
        }
        self.changed = n as u64;
    }
}

/// What the data area holds before the pokes: the same for every case, corner values often.
pub fn pristine() -> Vec<u64> {
    let mut rng = super::rng::Rng::new(0x5eed);
    (0..DATA_LEN / 8).map(|_| rng.corner()).collect()
}

/// What exceptions are called, by vector.
pub fn trap_name(trap: u32) -> String {
    const NAMES: [&str; 20] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS",
        "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM",
    ];
    match trap {
        COMPLETED => "ok".into(),
        HANG => "hang".into(),
        CODE_WRITTEN => "write into the code pages".into(),
        n => NAMES
            .get(n as usize)
            .map_or_else(|| format!("#{n}"), |s| s.to_string()),
    }
}
