//! The oracle against known results: it must be right before anything is measured by it.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod host;

use host::case::*;
use host::native::Oracle;

fn oracle() -> Oracle {
    Oracle::new().expect("the oracle starts")
}

#[test]
fn adds_in_every_code_size() {
    let mut oracle = oracle();
    for mode in Mode::ALL {
        if !oracle.supports(mode) {
            println!("{}-bit code cannot run on this host", mode.bits());
            continue;
        }
        // ADD AL, BL; every other register must come back.
        let mut case = Case::new(mode, &[0x00, 0xd8]);
        case.gpr = std::array::from_fn(|i| 0x0101_0101_0101_0101 * (i as u64 + 1));
        (case.gpr[0], case.gpr[3]) = (0xff, 1);
        let out = oracle.run_one(&case).unwrap();
        assert_eq!(out.trap, COMPLETED);
        assert_eq!(out.rip, case.ip() + 2);
        assert_eq!(out.rflags & ARITH, 0x55, "CF, PF, AF, ZF");
        let mut expected = case.gpr.map(|r| r & mode.gpr_mask());
        expected[0] = 0;
        assert_eq!(out.gpr, expected, "{mode:?}");
        assert_eq!(out.changed, 0);
    }
}

#[test]
fn faults_and_landings() {
    let mut oracle = oracle();
    // MOV [RAX], RCX with RAX on the read-only page.
    let mut case = Case::new(Mode::M64, &[0x48, 0x89, 0x08]);
    case.gpr[0] = DATA + DATA_RW as u64;
    let out = oracle.run_one(&case).unwrap();
    assert_eq!((out.trap, out.error), (14, 7));
    assert_eq!((out.address, out.rip), (case.gpr[0], case.ip()));
    // One that straddles it from below faults at the page, and writes nothing.
    case.gpr[0] -= 3;
    let out = oracle.run_one(&case).unwrap();
    assert_eq!((out.trap, out.address), (14, DATA + DATA_RW as u64));
    assert_eq!(out.changed, 0);
    // And one that fits writes two words.
    case.gpr[0] -= 100;
    case.gpr[1] = 0x1122_3344_5566_7788;
    let out = oracle.run_one(&case).unwrap();
    assert_eq!((out.trap, out.changed), (COMPLETED, 2));
    // DIV BL by zero, UD2, JMP RAX to nowhere, JMP to itself.
    let out = oracle
        .run_one(&Case::new(Mode::M64, &[0xf6, 0xf3]))
        .unwrap();
    assert_eq!(out.trap, 0);
    let out = oracle
        .run_one(&Case::new(Mode::M64, &[0x0f, 0x0b]))
        .unwrap();
    assert_eq!(out.trap, 6);
    let mut case = Case::new(Mode::M64, &[0xff, 0xe0]);
    case.gpr[0] = 0x1234_5678;
    let out = oracle.run_one(&case).unwrap();
    assert_eq!((out.trap, out.rip), (COMPLETED, 0x1234_5678));
    let out = oracle
        .run_one(&Case::new(Mode::M64, &[0xeb, 0xfe]))
        .unwrap();
    assert_eq!(out.trap, HANG);
}

#[test]
fn the_stack_segments_and_sse_come_through() {
    let mut oracle = oracle();
    for mode in Mode::ALL {
        if !oracle.supports(mode) {
            println!("{}-bit code cannot run on this host", mode.bits());
            continue;
        }
        // PUSH (E/R)AX.
        let mut case = Case::new(mode, &[0x50]);
        let size = mode.bits() as u64 / 8;
        case.gpr[4] = DATA - mode.seg_bases()[2] + 0x100;
        case.gpr[0] = 0x1122_3344_5566_7788;
        case.xmm = std::array::from_fn(|i| 1 << i);
        case.mxcsr = 0x3fa0;
        case.rflags = DF | 1;
        let out = oracle.run_one(&case).unwrap();
        assert_eq!(out.trap, COMPLETED, "{mode:?}");
        assert_eq!(out.gpr[4], case.gpr[4] - size);
        assert_eq!(out.writes()[0].offset, 0xf8);
        assert_eq!((out.xmm, out.mxcsr), (case.xmm, case.mxcsr));
        assert_eq!(out.rflags, DF | 1);
        // MOV AL, FS:[BX/EBX/RBX], from a poked byte.
        let code: &[u8] = match mode {
            Mode::M16 => &[0x64, 0x8a, 0x07],
            _ => &[0x64, 0x8a, 0x03],
        };
        let mut case = Case::new(mode, code);
        case.gpr[3] = DATA + 5 - FS_BASE;
        case.pokes[0] = Poke {
            offset: 5,
            len: 1,
            value: 0x5a,
        };
        let out = oracle.run_one(&case).unwrap();
        assert_eq!((out.trap, out.gpr[0]), (COMPLETED, 0x5a), "{mode:?}");
        assert_eq!(out.changed, 0);
    }
}

#[test]
fn a_hundred_thousand_cases_in_one_go() {
    let mut oracle = oracle();
    let cases = vec![Case::new(Mode::M64, &[0x48, 0x01, 0xd8]); 100_000];
    let outcomes = oracle.run(&cases).unwrap();
    assert!(outcomes.iter().all(|o| o.trap == COMPLETED));
}

#[test]
fn every_integer_form_runs_on_the_host() {
    use host::{forms, rng::Rng, states::Steering};
    let mut oracle = oracle();
    let mut tally = std::collections::BTreeMap::new();
    let mut hangs = Vec::new();
    for mode in Mode::ALL {
        for code in forms::forms(mode) {
            let class = forms::class(code);
            if class != forms::Class::Integer {
                *tally.entry((mode, format!("{class:?}"))).or_insert(0) += 1;
                continue;
            }
            let mut rng = Rng::new(code as u64);
            let mut cases = Vec::new();
            let mut texts = Vec::new();
            let mut tried = 0;
            for _ in 0..20 {
                let Some(encoding) = forms::encode(&mut rng, mode, code) else {
                    break;
                };
                let steering = Steering::new(mode, &encoding);
                for _ in 0..5 {
                    tried += 1;
                    if let Some(case) = steering.case(&mut rng) {
                        cases.push(case);
                        texts.push(encoding.instr);
                    }
                }
            }
            if tried == 0 {
                println!("{} {code:?} no encoding", mode.bits());
                continue;
            }
            let out = oracle
                .run(&cases)
                .unwrap_or_else(|e| panic!("{e} {code:?} {mode:?}"));
            let done = out.iter().filter(|o| o.trap == COMPLETED).count();
            for (i, o) in out.iter().enumerate() {
                if o.trap == HANG {
                    hangs.push(format!("{mode:?} {code:?} {:x?}", cases[i].bytes()));
                }
            }
            if cases.len() * 2 < tried || done * 3 < cases.len() {
                println!(
                    "{} {code:?}: {tried} tried, {} cases, {done} completed, e.g. {} {:?}",
                    mode.bits(),
                    cases.len(),
                    texts.first().map_or(String::new(), |t| format!("{t:?}")
                        .chars()
                        .take(0)
                        .collect()),
                    out.iter().map(|o| o.trap).find(|t| *t != COMPLETED)
                );
            }
            *tally.entry((mode, format!("{class:?}"))).or_insert(0) += 1;
        }
    }
    println!("{tally:#?}");
    assert!(hangs.is_empty(), "{hangs:#?}");
}
