//! Where things lie in a guest's address space (see `docs/user-mode.md`).

use crate::memory::PAGE;
use crate::user::abi::Abi;

/// Size of the main thread's stack.
pub const STACK_SIZE: u64 = 8 << 20;

/// Space kept free between the stack and what is mapped below it.
const STACK_GAP: u64 = 1 << 20;

/// The fixed places of an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Lowest address that the guest may map.
    pub low: u64,
    /// Where position-independent programs go.
    pub pie_base: u64,
    /// `mmap` without an address looks for space below this.
    pub mmap_top: u64,
    /// First byte of the stack.
    pub stack_low: u64,
    /// First byte past the stack.
    pub stack_top: u64,
    /// The page with the signal return code.
    pub trampoline: u64,
}

impl Layout {
    /// The layout for a window of `limit` bytes.
    pub fn new(abi: Abi, limit: u64) -> Layout {
        let (stack_top, pie_base) = match abi {
            Abi::I386 => (0xffff_d000, 0x5655_5000),
            Abi::X86_64 => (limit - 0x10_0000, limit / 4 + 0x5555_5000),
        };
        let stack_low = stack_top - STACK_SIZE;
        Layout {
            low: 0x1_0000,
            pie_base,
            mmap_top: stack_low - STACK_GAP,
            stack_low,
            stack_top,
            trampoline: stack_top + PAGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_in_the_window_and_in_order() {
        for (abi, limit) in [
            (Abi::I386, 1u64 << 32),
            (Abi::X86_64, 1 << 34),
            (Abi::X86_64, 1 << 40),
        ] {
            let l = Layout::new(abi, limit);
            assert!(l.low < l.pie_base && l.pie_base < l.mmap_top);
            assert!(l.mmap_top < l.stack_low && l.stack_low < l.stack_top);
            assert!(l.stack_top < l.trampoline && l.trampoline + PAGE <= limit);
            for place in [l.pie_base, l.mmap_top, l.stack_low, l.trampoline] {
                assert_eq!(place % PAGE, 0);
            }
        }
        assert!(Layout::new(Abi::I386, 1 << 32).stack_top < 0xffff_e000);
    }
}
