//! System-management mode.

use super::super::smm;
use super::*;
use crate::cpu_model::CpuModel;

const RSM: SystemOp = SystemOp::new(SystemKind::Rsm);

/// With RAM where SMRAM lies, and registers that tell each other apart.
fn guest(long: bool, model: &str) -> Guest {
    let mut g = if long {
        Guest::long()
    } else {
        Guest::protected()
    };
    g.env.cpu = CpuModel::from_name(model).unwrap();
    g.state.sys.smbase = 0x1_0000;
    for (n, register) in g.state.gpr.iter_mut().enumerate() {
        let high = if long { 0x1111_0000_0000_0000 } else { 0 };
        *register = high + 0x100 * (n as u64 + 1);
        if !long && n > 7 {
            *register = 0;
        }
    }
    g.state.rip = 0x4321;
    g.state.set_rflags(0x246);
    g.cx().changed();
    g
}

fn round_trip(long: bool, model: &str) {
    for (cpl, halted) in [(0, false), (3, false), (0, true)] {
        let mut g = guest(long, model);
        g.level(cpl);
        if halted {
            g.state.sys.activity = Activity::Halted;
        }
        if long {
            // Nothing reads linear memory from here on.
            g.state.sys.cr0 |= cr0::PG;
        }
        let before = g.registers();
        smm::enter(&g.cx());
        assert_eq!(
            (g.state.seg_base[1], g.state.seg_sel[1]),
            (0x1_0000, 0x1000)
        );
        assert_eq!((g.state.rip, g.state.rflags()), (0x8000, 2));
        assert_eq!(mode::level(&g.state), metaphrase_frontend::Level::Real);
        assert_eq!(g.state.sys.activity, Activity::Running);
        assert!(g.state.sys.nmi_blocked && g.state.sys.smm);
        g.state.gpr[..8].fill(7);
        g.run(RSM, 0, 0).unwrap();
        assert!(g.registers() == before, "{model}, CPL {cpl}");
        assert!(!g.state.sys.nmi_blocked);
        assert_eq!(g.run(RSM, 0, 0), Err(Fault::UD));
    }
}

#[test]
fn rsm_brings_everything_back() {
    round_trip(true, "max");
    round_trip(false, "max");
    round_trip(false, "pentium");
}

#[test]
fn firmware_finds_and_moves_the_base() {
    for (model, revision, base) in [("max", 0x2_0064, 0xff00), ("pentium", 0x2_0000, 0xfef8)] {
        let mut g = guest(false, model);
        smm::enter(&g.cx());
        assert_eq!(g.get32(0x1_fefc), revision);
        assert_eq!(g.get32(0x1_0000 + base), 0x1_0000);
        g.put32(0x1_0000 + base, 0x2_0000);
        g.run(RSM, 0, 0).unwrap();
        assert_eq!(g.state.sys.smbase, 0x2_0000);
        smm::enter(&g.cx());
        assert_eq!(
            (g.state.seg_base[1], g.state.seg_sel[1]),
            (0x2_0000, 0x2000)
        );
        assert_eq!(g.get32(0x2_fefc), revision);
    }
}

#[test]
fn registers_are_where_the_manuals_have_them() {
    let mut g = guest(true, "max");
    smm::enter(&g.cx());
    assert_eq!(g.get(0x1_fff8), 0x1111_0000_0000_0100);
    assert_eq!(g.get(0x1_ff80), 0x1111_0000_0000_1000);
    assert_eq!(g.get(0x1_ff78), 0x4321);
    assert_eq!(g.get16(0x1_fe10), LONG0);
    assert_eq!(g.get16(0x1_fe12), 0xa9b);
    let mut g = guest(false, "pentium");
    smm::enter(&g.cx());
    assert_eq!(g.get32(0x1_ffd0), 0x100);
    assert_eq!(g.get32(0x1_ffec), 0x800);
    assert_eq!(g.get32(0x1_fff0), 0x4321);
    assert_eq!(g.get32(0x1_fff4), 0x246);
    assert_eq!(g.get32(0x1_ffac), CODE0.into());
}

#[test]
fn impossible_registers_shut_down() {
    let mut g = guest(false, "max");
    smm::enter(&g.cx());
    // CR0.PG without PE.
    g.put32(0x1_ff58, 0x8000_0010);
    g.run(RSM, 0, 0).unwrap();
    assert_eq!(g.state.sys.activity, Activity::Shutdown);
}
