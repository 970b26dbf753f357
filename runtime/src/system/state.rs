//! The registers that only a whole system has, and the names of their bits.
//!
//! Selectors and bases of the six segment registers are in [`crate::CpuState`] with the others,
//! RFLAGS too; their limits and attributes are here.

/// CR0 bits (SDM volume 3, 2.5).
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulation.
    pub const EM: u64 = 1 << 2;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Extension type; always 1.
    pub const ET: u64 = 1 << 4;
    /// Numeric error.
    pub const NE: u64 = 1 << 5;
    /// Write protect.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// CR4 bits (SDM volume 3, 2.5).
pub mod cr4 {
    /// Virtual-8086 mode extensions.
    pub const VME: u64 = 1;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// Time stamp disable.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// Page size extensions.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine-check enable.
    pub const MCE: u64 = 1 << 6;
    /// Page global enable.
    pub const PGE: u64 = 1 << 7;
    /// Performance-monitoring counter enable.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE, FXRSTOR and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// Unmasked SSE exceptions.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// User-mode instruction prevention.
    pub const UMIP: u64 = 1 << 11;
    /// FSGSBASE instructions.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE and extended states.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
}

/// IA32_EFER bits (SDM volume 3, 2.2.1).
pub mod efer {
    /// SYSCALL enable.
    pub const SCE: u64 = 1;
    /// IA-32e mode enable.
    pub const LME: u64 = 1 << 8;
    /// IA-32e mode active.
    pub const LMA: u64 = 1 << 10;
    /// Execute-disable enable.
    pub const NXE: u64 = 1 << 11;
}

/// Segment attributes: bits 8 to 23 of a descriptor's second doubleword, shifted down by 8, with
/// zeros where the limit lies (SDM volume 3, figure 3-8).
pub mod attr {
    /// The type field.
    pub const TYPE: u32 = 0xf;
    /// Data or code, written to or used: accessed.
    pub const ACCESSED: u32 = 1;
    /// Data: writable. Code: readable.
    pub const RW: u32 = 1 << 1;
    /// Data: expand-down. Code: conforming.
    pub const DC: u32 = 1 << 2;
    /// Code rather than data.
    pub const CODE: u32 = 1 << 3;
    /// Code or data rather than a system descriptor.
    pub const S: u32 = 1 << 4;
    /// Where the two bits of the descriptor's privilege level start.
    pub const DPL_SHIFT: u32 = 5;
    /// Present. A cached segment without it is unusable (a null selector was loaded).
    pub const P: u32 = 1 << 7;
    /// 64-bit code.
    pub const L: u32 = 1 << 13;
    /// Default operation size 32 bits; for SS: a 32-bit stack.
    pub const DB: u32 = 1 << 14;
    /// The limit counts pages.
    pub const G: u32 = 1 << 15;
}

/// LDTR or TR with its cached descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemSegment {
    /// Linear base.
    pub base: u64,
    /// Last valid offset.
    pub limit: u32,
    /// Attributes, see [`attr`].
    pub attr: u32,
    /// The selector.
    pub selector: u16,
}

/// GDTR or IDTR.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear base.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}

/// Why no instruction or no interrupt comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Executing.
    #[default]
    Running,
    /// HLT: until an interrupt.
    Halted,
    /// MWAIT: until an interrupt or a write.
    Waiting,
    /// A triple fault: until reset.
    Shutdown,
}

/// An interrupt shadow: what must not come before the next instruction is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Shadow {
    /// None.
    #[default]
    None,
    /// After STI: no maskable interrupt.
    Sti,
    /// After a load of SS: no interrupt and no debug trap.
    MovSs,
}

/// System registers of one virtual CPU. (Aligned as what follows in the state wants it.)
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SystemState {
    /// CR0.
    pub cr0: u64,
    /// CR2, the page-fault address.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8, the task priority (0 to 15).
    pub cr8: u64,
    /// The page-directory-pointer-table entries of PAE paging (SDM volume 3, 4.4.1).
    pub pdpte: [u64; 4],
    /// IA32_EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// The last valid offset of each segment, in encoding order.
    pub seg_limit: [u32; 6],
    /// Attributes of each segment, see [`attr`].
    pub seg_attr: [u32; 6],
    /// LDTR.
    pub ldtr: SystemSegment,
    /// TR.
    pub tr: SystemSegment,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// DR0 to DR3, two unused, DR6, DR7.
    pub dr: [u64; 8],
    /// Model-specific registers with a meaning of their own.
    pub msr: Msrs,
    /// The current privilege level.
    pub cpl: u8,
    /// What must not come before the next instruction is done.
    pub shadow: Shadow,
    /// The number of instructions executed when the shadow began: after another it is over.
    pub shadow_from: u64,
    /// Whether it executes.
    pub activity: Activity,
    /// In system-management mode.
    pub smm: bool,
    /// An NMI is being handled: no other until IRET.
    pub nmi_blocked: bool,
    /// A20 is open.
    pub a20: bool,
    /// Something that the mode key depends on may have changed; the dispatcher looks and clears it.
    pub mode_changed: bool,
    /// An interrupt may have become possible: the dispatcher leaves for the layer above.
    pub look: bool,
    /// MONITOR has armed the hardware that MWAIT waits on; any event disarms it.
    pub monitor_armed: bool,
    /// The base of SMRAM.
    pub smbase: u32,
    /// DR6 bits of the debug trap that comes after the instruction that was just done: matched
    /// I/O and data breakpoints.
    pub pending_debug: u32,
}

/// Model-specific registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// What WRMSR to IA32_TIME_STAMP_COUNTER and IA32_TSC_ADJUST add to the counter.
    pub tsc_offset: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// The fixed-range MTRRs: 64K_00000, 16K_80000, 16K_A0000, 4K_C0000 to 4K_F8000.
    pub mtrr_fixed: [u64; 11],
    /// Base and mask of the variable-range MTRRs.
    pub mtrr_variable: [[u64; 2]; 8],
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_MCG_STATUS.
    pub mcg_status: u64,
    /// CTL, STATUS, ADDR and MISC of the machine-check banks.
    pub mc_banks: [[u64; 4]; 4],
}

impl SystemState {
    /// The registers without the notes that the dispatcher clears when it comes by.
    pub fn architectural(&self) -> SystemState {
        SystemState {
            mode_changed: false,
            look: false,
            shadow_from: 0,
            ..*self
        }
    }

    /// After power-up (SDM volume 3, table 9-1). CS's base, 0xffff0000, and RIP, 0xfff0, are the
    /// reset's to set in the other half of the state.
    pub fn power_up() -> SystemState {
        let data = attr::P | attr::S | attr::RW | attr::ACCESSED;
        let mut seg_attr = [data; 6];
        seg_attr[1] = data | attr::CODE;
        let system = |kind: u32| SystemSegment {
            base: 0,
            limit: 0xffff,
            attr: attr::P | kind,
            selector: 0,
        };
        let table = TableRegister {
            base: 0,
            limit: 0xffff,
        };
        SystemState {
            cr0: cr0::CD | cr0::NW | cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            pdpte: [0; 4],
            efer: 0,
            xcr0: 1,
            seg_limit: [0xffff; 6],
            seg_attr,
            ldtr: system(2),
            tr: system(11),
            gdtr: table,
            idtr: table,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            msr: Msrs {
                pat: 0x0007_0406_0007_0406,
                apic_base: 0xfee0_0900,
                // Fast strings; the monitor hardware; branch trace and event sampling are
                // unavailable.
                misc_enable: 0x4_1801,
                ..Msrs::default()
            },
            cpl: 0,
            shadow: Shadow::None,
            shadow_from: 0,
            activity: Activity::Running,
            smm: false,
            nmi_blocked: false,
            a20: true,
            mode_changed: true,
            look: false,
            monitor_armed: false,
            smbase: 0x30000,
            pending_debug: 0,
        }
    }
}
