//! The helper functions that IR calls, in the order of [`metaphrase_ir::Helper`].
