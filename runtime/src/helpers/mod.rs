//! The helper functions that IR calls, in the order of [`metaphrase_ir::Helper`].

use metaphrase_backend::HelperTable;
use std::ffi::c_void;

unsafe extern "C" fn flags(_: *mut c_void, _: u64, _: u64, _: u64, _: u64) -> u64 {
    0
}

/// The functions, for both engines.
pub fn table() -> HelperTable {
    HelperTable {
        helpers: &[],
        flags,
    }
}
