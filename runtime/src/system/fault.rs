//! An exception that an instruction of a full system raises.

/// An exception with what its delivery needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The vector.
    pub vector: u8,
    /// The error code, for vectors that have one.
    pub error: Option<u32>,
    /// The linear address, for #PF.
    pub addr: u64,
}

impl Fault {
    /// One without error code.
    pub const fn plain(vector: u8) -> Fault {
        Fault {
            vector,
            error: None,
            addr: 0,
        }
    }

    /// One with that error code.
    pub const fn coded(vector: u8, error: u32) -> Fault {
        Fault {
            vector,
            error: Some(error),
            addr: 0,
        }
    }

    /// #UD.
    pub const UD: Fault = Fault::plain(6);
    /// #NM.
    pub const NM: Fault = Fault::plain(7);

    /// #TS.
    pub const fn ts(error: u32) -> Fault {
        Fault::coded(10, error)
    }

    /// #NP.
    pub const fn np(error: u32) -> Fault {
        Fault::coded(11, error)
    }

    /// #SS.
    pub const fn ss(error: u32) -> Fault {
        Fault::coded(12, error)
    }

    /// #GP.
    pub const fn gp(error: u32) -> Fault {
        Fault::coded(13, error)
    }

    /// #PF at that linear address (SDM volume 3, 4.7 for the code).
    pub const fn pf(addr: u64, error: u32) -> Fault {
        Fault {
            vector: 14,
            error: Some(error),
            addr,
        }
    }
}
