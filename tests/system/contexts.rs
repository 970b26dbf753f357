//! The modes and privilege levels in which code can run, each as a guest with handlers.

use crate::harness::{CODE, Guest};
use crate::tables::{STACK, USER_STACK, sel};
use metaphrase_runtime::CpuState;
use metaphrase_runtime::system::attr;

/// RFLAGS.VM.
pub const VM: u64 = 1 << 17;

/// A mode with its privilege level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Real mode.
    Real,
    /// Virtual-8086 mode.
    V86,
    /// Protected mode, 16-bit code.
    Protected16(u8),
    /// Protected mode, 32-bit code.
    Protected32(u8),
    /// IA-32e mode, 16-bit code.
    Compatibility16(u8),
    /// IA-32e mode, 32-bit code.
    Compatibility32(u8),
    /// 64-bit mode.
    Long(u8),
}

use Context::*;

/// The ends of privilege in each mode.
pub const ENDS: [Context; 12] = [
    Real,
    V86,
    Protected16(0),
    Protected16(3),
    Protected32(0),
    Protected32(3),
    Compatibility16(0),
    Compatibility16(3),
    Compatibility32(0),
    Compatibility32(3),
    Long(0),
    Long(3),
];

impl Context {
    /// Every level in each mode.
    pub fn all() -> Vec<Context> {
        let modes = [
            Protected16,
            Protected32,
            Compatibility16,
            Compatibility32,
            Long,
        ];
        let leveled = modes.iter().flat_map(|mode| (0..4).map(mode));
        [Real, V86].into_iter().chain(leveled).collect()
    }

    /// The code size.
    pub fn bits(self) -> u32 {
        match self {
            Real | V86 | Protected16(_) | Compatibility16(_) => 16,
            Protected32(_) | Compatibility32(_) => 32,
            Long(_) => 64,
        }
    }

    /// The privilege level.
    pub fn cpl(self) -> u8 {
        match self {
            Real => 0,
            V86 => 3,
            Protected16(cpl) | Protected32(cpl) => cpl,
            Compatibility16(cpl) | Compatibility32(cpl) | Long(cpl) => cpl,
        }
    }

    /// Whether handlers run in 64-bit code.
    pub fn is_ia32e(self) -> bool {
        matches!(self, Compatibility16(_) | Compatibility32(_) | Long(_))
    }

    /// Neither real nor virtual-8086 mode.
    pub fn is_protected(self) -> bool {
        !matches!(self, Real | V86)
    }

    /// The bytes of a word of a handler's frame.
    pub fn frame_word(self) -> u64 {
        match self {
            Real => 2,
            _ if self.is_ia32e() => 8,
            _ => 4,
        }
    }

    /// CS.
    pub fn cs(self) -> u16 {
        match self {
            Real | V86 => 0,
            Protected16(cpl) | Compatibility16(cpl) => sel::code16(cpl),
            Protected32(cpl) | Compatibility32(cpl) => sel::code32(cpl),
            Long(cpl) => sel::code64(cpl),
        }
    }

    /// SS and the other data segments.
    pub fn ss(self) -> u16 {
        match self {
            Real | V86 => 0,
            _ => sel::data(self.cpl()),
        }
    }

    /// The stack pointer at the start.
    pub fn sp(self) -> u64 {
        if self.cpl() == 0 { STACK } else { USER_STACK }
    }

    /// Puts the registers of a guest with the right tables into this mode.
    fn enter(self, s: &mut CpuState) {
        const DATA: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED;
        s.gpr[4] = self.sp();
        if self == Real {
            return;
        }
        let dpl = u32::from(self.cpl()) << attr::DPL_SHIFT;
        s.sys.cpl = self.cpl();
        if self == V86 {
            s.set_rflags(s.rflags() | VM);
            s.seg_sel = [0; 6];
            s.seg_base = [0; 6];
            s.sys.seg_limit = [0xffff; 6];
            s.sys.seg_attr = [DATA | dpl; 6];
            return;
        }
        s.seg_sel = [self.ss(); 6];
        s.seg_sel[1] = self.cs();
        s.sys.seg_attr = [DATA | dpl | attr::DB | attr::G; 6];
        let code = DATA | dpl | attr::CODE;
        (s.sys.seg_attr[1], s.sys.seg_limit[1]) = match self.bits() {
            16 => (code, 0xffff),
            32 => (code | attr::DB | attr::G, u32::MAX),
            _ => (code | attr::L | attr::G, u32::MAX),
        };
    }

    /// A guest that starts with `code` at [`CODE`] in this mode. Levels 1 and 2 have no stack of
    /// their own: exceptions there go to level 0.
    pub fn guest(self, code: Vec<u8>) -> Guest {
        let guest = match self {
            Real => Guest::real_handled(code),
            _ if self.is_ia32e() => Guest::long(code),
            _ => Guest::protected(code),
        };
        guest.setup(move |s| {
            self.enter(s);
            s.rip = CODE;
        })
    }
}
