//! The processor's registers as text, for the monitor.

use metaphrase_runtime::Machine;
use std::fmt::Write;

const NAMES: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// The registers.
pub fn text(machine: &Machine) -> String {
    let (s, sys) = (machine.state(), &machine.state().sys);
    let mut out = String::new();
    for row in 0..4 {
        let cells = (row * 4..row * 4 + 4).map(|n| format!("{:3}={:016x}", NAMES[n], s.gpr[n]));
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(out, "{}", cells.join(" "));
    }
    let _ = writeln!(
        out,
        "RIP={:016x} RFL={:08x} CPL={} A20={} SMM={} {:?}",
        s.rip,
        s.rflags(),
        sys.cpl,
        u8::from(sys.a20),
        u8::from(sys.smm),
        sys.activity
    );
    for (n, name) in SEGMENTS.iter().enumerate() {
        let _ = writeln!(
            out,
            "{name} ={:04x} {:016x} {:08x} {:08x}",
            s.seg_sel[n], s.seg_base[n], sys.seg_limit[n], sys.seg_attr[n]
        );
    }
    for (name, x) in [("LDT", &sys.ldtr), ("TR ", &sys.tr)] {
        let _ = writeln!(
            out,
            "{name}={:04x} {:016x} {:08x} {:08x}",
            x.selector, x.base, x.limit, x.attr
        );
    }
    for (name, x) in [("GDT", &sys.gdtr), ("IDT", &sys.idtr)] {
        let _ = writeln!(out, "{name}=     {:016x} {:08x}", x.base, x.limit);
    }
    let _ = writeln!(
        out,
        "CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x} CR8={:x}",
        sys.cr0, sys.cr2, sys.cr3, sys.cr4, sys.cr8
    );
    let _ = writeln!(
        out,
        "DR6={:08x} DR7={:08x} EFER={:x} XCR0={:x} MXCSR={:08x}",
        sys.dr[6], sys.dr[7], sys.efer, sys.xcr0, s.mxcsr
    );
    out
}
