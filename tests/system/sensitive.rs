//! Every privileged and sensitive instruction at both ends of privilege in every mode: what it
//! raises, or that it does not. `docs/sensitive-instructions.md` has the table.

use crate::harness::{CODE, Guest, assemble, word};
use crate::tables::{Record, sel};
use iced_x86::code_asm::*;
use metaphrase_ir::sysflags;
use metaphrase_runtime::CpuState;
use metaphrase_runtime::system::{attr, cr4};

/// A mode and a privilege level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Real,
    /// With IOPL 0.
    V86,
    Kernel32,
    User32,
    Kernel64,
    User64,
    Compatibility,
}

/// In the order of [`Row`]'s outcomes.
const ALL: [At; 7] = [
    At::Real,
    At::V86,
    At::Kernel32,
    At::User32,
    At::Kernel64,
    At::User64,
    At::Compatibility,
];

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    /// Its work; the next instruction comes.
    Work,
    /// #UD.
    Ud,
    /// #GP(0).
    Gp,
    /// Something that other tests are about.
    Else,
}

use Does::{Else, Gp, Ud, Work};

/// Where the stubs of real mode's handlers lie, 8 bytes each.
const REAL_STUBS: u64 = 0x5000;
/// Where memory operands lie.
const OPERAND: u64 = 0x9000;

/// Handlers of real mode: each records its vector and the IP, and halts.
fn real(code: Vec<u8>) -> Guest {
    let mut guest = Guest::real(code);
    for vector in 0..32u64 {
        let at = REAL_STUBS + 16 * vector;
        let stub = assemble(16, at, |a| {
            a.mov(word_ptr(0x600), vector as i32).unwrap();
            a.pop(word_ptr(0x608)).unwrap();
            a.hlt().unwrap();
        });
        guest = guest
            .with(4 * vector, vec![at as u8, (at >> 8) as u8, 0, 0])
            .with(at, stub);
    }
    guest.setup(|s| s.gpr[4] = 0x6000)
}

/// Level 3 with that code segment.
fn user(s: &mut CpuState, code: u16) {
    s.sys.cpl = 3;
    s.seg_sel = [sel::USER_DATA; 6];
    s.seg_sel[1] = code;
    for attributes in &mut s.sys.seg_attr {
        *attributes |= 3 << attr::DPL_SHIFT;
    }
    s.gpr[4] = 0xf000;
}

impl At {
    fn guest(self, code: Vec<u8>) -> Guest {
        match self {
            At::Real => real(code),
            At::V86 => Guest::protected(code).setup(|s| {
                s.sys.cpl = 3;
                s.sysflags |= sysflags::VM;
                s.seg_sel = [0; 6];
                s.sys.seg_limit = [0xffff; 6];
                let data = attr::P | attr::S | attr::RW | attr::ACCESSED;
                s.sys.seg_attr = [data | 3 << attr::DPL_SHIFT; 6];
                s.gpr[4] = 0xf000;
            }),
            At::Kernel32 => Guest::protected(code),
            At::User32 => Guest::protected(code).setup(|s| user(s, sel::USER_CODE32)),
            At::Kernel64 => Guest::long(code),
            At::User64 => Guest::long(code).setup(|s| user(s, sel::USER_CODE64)),
            At::Compatibility => Guest::long(code).setup(|s| {
                user(s, sel::USER_CODE32);
                s.sys.seg_attr[1] = s.sys.seg_attr[1] & !attr::L | attr::DB;
            }),
        }
    }

    /// What `bytes` does with these registers. HLT follows: at level 0 it is the end, above it a
    /// fault of its own.
    fn does(self, bytes: &[u8], set: [fn(&mut CpuState); 2]) -> Does {
        let mut code = bytes.to_vec();
        code.push(0xf4);
        let guest = self.guest(code).setup(move |s| {
            (s.gpr[3], s.gpr[7]) = (OPERAND, OPERAND);
            set.iter().for_each(|set| set(s));
        });
        let behind = CODE as u32 + bytes.len() as u32;
        let found = std::cell::Cell::new(None);
        guest.run(|m| {
            let (vector, ip) = if self == At::Real {
                (word(m, 0x600) & 0xffff, word(m, 0x608) & 0xffff)
            } else {
                let r = Record::of(m);
                assert!(r.vector != 13 || r.error == 0, "{r:x?}");
                (r.vector, r.ip)
            };
            let user = matches!(self, At::V86 | At::User32 | At::User64 | At::Compatibility);
            found.set(Some(match (vector, ip) {
                (13, ip) if user && ip == behind => Work,
                (0, 0) if !user && m.state().rip == u64::from(behind) + 1 => Work,
                (6, ip) if ip == CODE as u32 => Ud,
                (13, ip) if ip == CODE as u32 => Gp,
                other => panic!("{bytes:02x?} at {self:?}: {other:x?}, {:x}", m.state().rip),
            }));
        });
        found.get().expect("it ran")
    }
}

/// The instruction, the registers it needs, and what it does at [`ALL`] levels.
type Row = (&'static [u8], fn(&mut CpuState), [Does; 7]);

/// Allowed at level 0.
const PRIVILEGED: [Does; 7] = [Work, Gp, Work, Gp, Work, Gp, Gp];
/// Allowed everywhere.
const ALWAYS: [Does; 7] = [Work; 7];
/// Where selectors name descriptors.
const PROTECTED: [Does; 7] = [Ud, Ud, Work, Work, Work, Work, Work];
/// There, at level 0.
const PROTECTED_PRIVILEGED: [Does; 7] = [Ud, Ud, Work, Gp, Work, Gp, Gp];
/// Allowed at level 0, and otherwise as if it did not exist.
const SUPERVISOR: [Does; 7] = [Work, Ud, Work, Ud, Work, Ud, Ud];

fn rax(s: &mut CpuState, v: u64) {
    s.gpr[0] = v;
}

const NOTHING: fn(&mut CpuState) = |_| {};
const CR0: fn(&mut CpuState) = |s| rax(s, s.sys.cr0);
const TSC: fn(&mut CpuState) = |s| s.gpr[1] = 0x10;
const USER_DATA: fn(&mut CpuState) = |s| rax(s, sel::USER_DATA.into());

const TABLE: &[Row] = &[
    (&[0x0f, 0x20, 0xc0], NOTHING, PRIVILEGED), // MOV EAX, CR0
    (&[0x0f, 0x22, 0xc0], CR0, PRIVILEGED),     // MOV CR0, EAX
    (&[0x0f, 0x20, 0xc8], NOTHING, [Ud; 7]),    // MOV EAX, CR1
    (&[0x0f, 0x21, 0xf8], NOTHING, PRIVILEGED), // MOV EAX, DR7
    (&[0x0f, 0x23, 0xf8], |s| rax(s, 0x400), PRIVILEGED), // MOV DR7, EAX
    (&[0x0f, 0x06], NOTHING, PRIVILEGED),       // CLTS
    (&[0x0f, 0x01, 0xf0], CR0, PRIVILEGED),     // LMSW AX
    (&[0x0f, 0x01, 0xe0], NOTHING, ALWAYS),     // SMSW AX
    (&[0x0f, 0x32], TSC, PRIVILEGED),           // RDMSR
    (&[0x0f, 0x30], TSC, PRIVILEGED),           // WRMSR
    (&[0x0f, 0x31], NOTHING, ALWAYS),           // RDTSC
    (&[0x0f, 0x01, 0xf9], NOTHING, ALWAYS),     // RDTSCP
    (&[0x0f, 0xa2], NOTHING, ALWAYS),           // CPUID
    (&[0x0f, 0x01, 0xd1], NOTHING, [Ud; 7]),    // XSETBV without CR4.OSXSAVE
    (&[0x0f, 0x01, 0x07], NOTHING, ALWAYS),     // SGDT
    (&[0x0f, 0x01, 0x0f], NOTHING, ALWAYS),     // SIDT
    (&[0x0f, 0x01, 0x17], NOTHING, PRIVILEGED), // LGDT
    (&[0x0f, 0x01, 0x1f], NOTHING, PRIVILEGED), // LIDT
    (&[0x0f, 0x00, 0xc0], NOTHING, PROTECTED),  // SLDT AX
    (&[0x0f, 0x00, 0xc8], NOTHING, PROTECTED),  // STR AX
    (&[0x0f, 0x00, 0xd0], NOTHING, PROTECTED_PRIVILEGED), // LLDT AX, null
    (
        &[0x0f, 0x00, 0xd8],
        |s| rax(s, sel::TSS.into()),
        PROTECTED_PRIVILEGED,
    ), // LTR AX
    (&[0x0f, 0x02, 0xc8], USER_DATA, PROTECTED), // LAR ECX, EAX
    (&[0x0f, 0x03, 0xc8], USER_DATA, PROTECTED), // LSL ECX, EAX
    (&[0x0f, 0x00, 0xe0], USER_DATA, PROTECTED), // VERR AX
    (&[0x0f, 0x00, 0xe8], USER_DATA, PROTECTED), // VERW AX
    (&[0x63, 0xc8], NOTHING, PROTECTED),        // ARPL AX, CX; MOVSXD
    (&[0x8e, 0xc0], USER_DATA, ALWAYS),         // MOV ES, AX
    (&[0x8e, 0xc8], USER_DATA, [Ud; 7]),        // MOV CS, AX
    (&[0x8c, 0xc8], NOTHING, ALWAYS),           // MOV AX, CS
    (&[0x0f, 0x01, 0xf8], NOTHING, [Ud, Ud, Ud, Ud, Work, Gp, Ud]), // SWAPGS
    (&[0x0f, 0x05], NOTHING, [Ud, Ud, Ud, Ud, Else, Else, Else]), // SYSCALL without EFER.SCE
    (&[0x0f, 0x07], NOTHING, [Ud, Ud, Ud, Ud, Else, Gp, Gp]), // SYSRET likewise
    (&[0x0f, 0x34], NOTHING, [Gp, Gp, Gp, Gp, Ud, Ud, Ud]), // SYSENTER, its CS null
    (&[0x0f, 0x35], NOTHING, [Gp, Gp, Gp, Gp, Ud, Ud, Ud]), // SYSEXIT likewise
    (&[0x0f, 0xaa], NOTHING, [Ud; 7]),          // RSM
    (&[0xfa], NOTHING, PRIVILEGED),             // CLI
    (&[0xfb, 0xfa], NOTHING, PRIVILEGED),       // STI; CLI
    (
        &[0x9c, 0x9d],
        NOTHING,
        [Work, Gp, Work, Work, Work, Work, Work],
    ), // PUSHF; POPF
    (&[0x0f, 0x01, 0xca], NOTHING, SUPERVISOR), // CLAC
    (&[0x0f, 0x01, 0xcb], NOTHING, SUPERVISOR), // STAC
    (&[0x0f, 0x01, 0xc8], NOTHING, [Ud; 7]),    // MONITOR, which the model does not have
    (&[0x0f, 0x01, 0x3f], NOTHING, PRIVILEGED), // INVLPG
    (&[0x66, 0x0f, 0x38, 0x82, 0x07], |s| rax(s, 2), PRIVILEGED), // INVPCID EAX, [EDI]
    (&[0x0f, 0x08], NOTHING, PRIVILEGED),       // INVD
    (&[0x0f, 0x09], NOTHING, PRIVILEGED),       // WBINVD
    (&[0xe4, 0x80], NOTHING, PRIVILEGED),       // IN AL, 0x80
    (&[0xe6, 0x80], NOTHING, PRIVILEGED),       // OUT 0x80, AL
    (&[0x6c], |s| s.gpr[2] = 0x80, PRIVILEGED), // INSB
    (
        &[0xf3, 0x6e],
        |s| (s.gpr[1], s.gpr[2], s.gpr[6]) = (3, 0x80, OPERAND),
        PRIVILEGED,
    ), // REP OUTSB
];

fn check(table: &[Row], and: fn(&mut CpuState)) {
    let mut wrong = Vec::new();
    for (bytes, set, wanted) in table {
        for (at, want) in ALL.into_iter().zip(*wanted) {
            if want == Else {
                continue;
            }
            let got = at.does(bytes, [*set, and]);
            if got != want {
                wrong.push(format!(
                    "{bytes:02x?} at {at:?}: {got:?} rather than {want:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_does_what_mode_and_level_say() {
    check(TABLE, NOTHING);
}

/// The registers show where things are, unless the system does not want that.
#[test]
fn user_mode_instruction_prevention_hides_the_tables() {
    const HIDDEN: [Does; 7] = [Work, Gp, Work, Gp, Work, Gp, Gp];
    const HIDDEN_PROTECTED: [Does; 7] = [Ud, Ud, Work, Gp, Work, Gp, Gp];
    let table: &[Row] = &[
        (&[0x0f, 0x01, 0x07], NOTHING, HIDDEN),           // SGDT
        (&[0x0f, 0x01, 0x0f], NOTHING, HIDDEN),           // SIDT
        (&[0x0f, 0x01, 0xe0], NOTHING, HIDDEN),           // SMSW AX
        (&[0x0f, 0x00, 0xc0], NOTHING, HIDDEN_PROTECTED), // SLDT AX
        (&[0x0f, 0x00, 0xc8], NOTHING, HIDDEN_PROTECTED), // STR AX
    ];
    check(table, |s| s.sys.cr4 |= cr4::UMIP);
}

#[test]
fn the_time_stamp_can_be_disabled() {
    let table: &[Row] = &[
        (&[0x0f, 0x31], NOTHING, PRIVILEGED),         // RDTSC
        (&[0x0f, 0x01, 0xf9], NOTHING, PRIVILEGED),   // RDTSCP
        (&[0xf3, 0x0f, 0xc7, 0xf8], NOTHING, ALWAYS), // RDPID EAX
    ];
    check(table, |s| s.sys.cr4 |= cr4::TSD);
}

#[test]
fn iopl_3_opens_interrupts_and_ports() {
    let table: &[Row] = &[
        (&[0xfa], NOTHING, ALWAYS),       // CLI
        (&[0xfb, 0xfa], NOTHING, ALWAYS), // STI; CLI
        (&[0x9c, 0x9d], NOTHING, ALWAYS), // PUSHF; POPF
        // Virtual-8086 mode asks the bitmap all the same.
        (
            &[0xe4, 0x80],
            NOTHING,
            [Work, Gp, Work, Work, Work, Work, Work],
        ),
        (&[0x0f, 0x06], NOTHING, PRIVILEGED), // CLTS
    ];
    check(table, |s| s.sysflags |= sysflags::IOPL);
}

#[test]
fn xsetbv_is_privileged_once_it_exists() {
    let table: &[Row] = &[
        (
            &[0x0f, 0x01, 0xd1],
            |s| (s.gpr[0], s.gpr[1], s.gpr[2]) = (1, 0, 0),
            PRIVILEGED,
        ),
        (&[0x0f, 0x01, 0xd0], |s| s.gpr[1] = 0, ALWAYS), // XGETBV
    ];
    check(table, |s| s.sys.cr4 |= cr4::OSXSAVE);
}
