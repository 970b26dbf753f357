//! CPUID in a whole system (SDM volume 2): the model's features with those that only the system
//! sees, and what depends on the registers. A Linux program sees what the model says by itself.
//!
//! Here the vendor is Intel, since the system instructions work by the SDM: SYSCALL in 64-bit code
//! only, SYSENTER everywhere.

use super::features::SystemWord;
use super::flags::ENABLE_MONITOR;
use super::msr::{LIMIT_CPUID, XD_DISABLE};
use super::state::cr4;
use super::{Cx, mode};
use crate::helpers::xsave;
use metaphrase_frontend::Features;

/// Feature bits that are not constant.
const MONITOR: u32 = 1 << 3;
const TSC_DEADLINE: u32 = 1 << 24;
const OSXSAVE: u32 = 1 << 27;
const APIC: u32 = 1 << 9;
const SYSCALL: u32 = 1 << 11;
const NX: u32 = 1 << 20;

/// IA32_APIC_BASE: the local APIC is on.
const APIC_ENABLED: u64 = 1 << 11;

/// A cache for leaf 4: type (1 data, 2 code, 3 both), level, ways, sets; lines of 64 bytes.
const CACHES: [[u32; 4]; 4] = [
    [1, 1, 8, 64],
    [2, 1, 8, 64],
    [3, 2, 8, 1024],
    [3, 3, 16, 4096],
];

fn word(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

/// The last basic leaf.
fn last_leaf(cx: &Cx) -> u32 {
    let cpu = cx.env().cpu;
    let last = cpu.cpuid(0, 0)[0];
    let limited = cx.sys().msr.misc_enable & LIMIT_CPUID != 0;
    if limited {
        return last.min(2);
    }
    let rates = cx.env().system.as_ref().and_then(|s| s.rates);
    if rates.is_some() && cpu.features().has(Features::LM) {
        last.max(0x16)
    } else {
        last
    }
}

/// EAX, EBX, ECX, EDX. A leaf that does not exist reads as the last basic one.
pub(crate) fn cpuid(cx: &Cx, leaf: u32, sub: u32) -> [u32; 4] {
    let last = last_leaf(cx);
    let last_extended = cx.env().cpu.cpuid(0x8000_0000, 0)[0];
    let exists = leaf <= last || (0x8000_0000..=last_extended).contains(&leaf);
    answer(cx, if exists { leaf } else { last }, sub)
}

fn answer(cx: &Cx, leaf: u32, sub: u32) -> [u32; 4] {
    let s = cx.state();
    let (env, sys) = (cx.env(), &s.sys);
    let cpu = env.cpu;
    let system = env.system.as_ref();
    let [a, b, c, d] = cpu.cpuid(leaf, sub);
    let shown = |w| cpu.system_features().cpuid(w);
    let apic_id = system.and_then(|s| s.apic_id);
    let keep = |bits: u32, mask: u32, on: bool| if on { bits } else { bits & !mask };
    match leaf {
        0 => [last_leaf(cx), word(b"Genu"), word(b"ntel"), word(b"ineI")],
        1 => {
            let wait = sys.msr.misc_enable & ENABLE_MONITOR != 0;
            let features = c | keep(shown(SystemWord::Leaf1Ecx), MONITOR, wait);
            let timer = system.is_some_and(|s| s.apic.is_some());
            let features = keep(features, TSC_DEADLINE, timer);
            let apic = apic_id.is_some() && sys.msr.apic_base & APIC_ENABLED != 0;
            [
                a,
                b | u32::from(apic_id.unwrap_or(0)) << 24,
                keep(features, OSXSAVE, sys.cr4 & cr4::OSXSAVE != 0),
                d | shown(SystemWord::Leaf1Edx) | if apic { APIC } else { 0 },
            ]
        }
        // Descriptor ff: the caches are in leaf 4.
        2 => [0xff01, 0, 0, 0],
        4 => match CACHES.get(sub as usize) {
            // Self-initialising; one core, one thread.
            Some(&[kind, level, ways, sets]) => [
                kind | level << 5 | 1 << 8,
                (ways - 1) << 22 | (64 - 1),
                sets - 1,
                0,
            ],
            None => [0; 4],
        },
        // The monitored line; masked interrupts can end MWAIT; the states C0 and C1.
        5 if shown(SystemWord::Leaf1Ecx) & MONITOR != 0 => [64, 64, 3, 0x10],
        // The timer of the local APIC always runs.
        6 => [if apic_id.is_some() { 4 } else { 0 }, 0, 0, 0],
        7 if sub == 2 => [0, 0, 0, shown(SystemWord::Leaf7Sub2Edx)],
        7 if sub == 0 => [
            // The last sub-leaf.
            a.max(2 * u32::from(shown(SystemWord::Leaf7Sub2Edx) != 0)),
            b | shown(SystemWord::Leaf7Ebx),
            c | shown(SystemWord::Leaf7Ecx),
            d | shown(SystemWord::Leaf7Edx),
        ],
        13 if a != 0 && sub <= 1 => {
            let size = |components: u64| {
                let upper = if components & xsave::AVX != 0 { 256 } else { 0 };
                xsave::UPPER as u32 + upper
            };
            let now = size(sys.xcr0);
            if sub == 0 {
                [a, now, size(cpu.xcr0()), d]
            } else {
                [a, if b == 0 { 0 } else { now }, c, d]
            }
        }
        0x15 => match system.and_then(|s| s.rates) {
            Some(rates) => [1, rates.tsc_ratio, rates.crystal_hz, 0],
            None => [0; 4],
        },
        0x16 => match system.and_then(|s| s.rates) {
            Some(rates) => {
                let mhz = (rates.tsc_hz() / 1_000_000) as u32;
                [mhz & 0xffff, mhz & 0xffff, 100, 0]
            }
            None => [0; 4],
        },
        0x8000_0001 => {
            let d = d | shown(SystemWord::ExtendedEdx);
            let d = keep(d, SYSCALL, mode::is_long_code(s));
            let d = keep(d, NX, sys.msr.misc_enable & XD_DISABLE == 0);
            [a, b, c, d]
        }
        0x8000_0005 => [0; 4],
        // The second-level cache only.
        0x8000_0006 => [0, 0, c, 0],
        // The time-stamp counter never stops or changes its rate.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        0x8000_0008 => [cpu.physical_bits() | 48 << 8, 0, 0, 0],
        _ => [a, b, c, d],
    }
}
