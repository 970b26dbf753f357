//! Every invariant of the verifier has regions here that break it and nothing else.

use metaphrase_ir::{Block, Op, Region, Type, Value, parse, verify};

const HEAD: &str = "region pc 0x1000 code64\nguest @0 +0x0 len 2 fuel 1\n";

/// A valid region with a bit of everything.
const VALID: &str = "block0:
    v1 = getreg.i64 rax ; @0
    v2 = trunc.i8 v1 ; @0
    v3 = iconst.i32 0x7 ; @0
    v4 = vconst 0x1 ; @0
    brif v2, block1(v1), block2 ; @0
block1(v5: i64):
    setflags.i64 sub v5, v1 ; @0
    v6 = vget.i16 i16x8 3 v4 ; @0
    br block1(v5) ; @0
block2:
    v7 = call.i64 load_segment 0x0 v8 ; @0
    exit_jump +0x2 ; @0
";

fn errors_of(region: &Region) -> Vec<String> {
    match verify(region) {
        Ok(()) => Vec::new(),
        Err(e) => e.errors.iter().map(ToString::to_string).collect(),
    }
}

/// The errors of a text's region.
fn errors(body: &str) -> Vec<String> {
    let text = format!("{HEAD}{body}");
    let region = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    errors_of(&region)
}

/// Exactly one error that contains `what`.
#[track_caller]
fn breaks(body: &str, what: &str) {
    let got = errors(body);
    assert!(
        got.len() == 1 && got[0].contains(what),
        "expected one error with \"{what}\", got {got:#?}\n{body}"
    );
}

/// The same for one line in a block.
#[track_caller]
fn line_breaks(line: &str, what: &str) {
    let consts = "    v90 = iconst.i8 0x1\n    v91 = iconst.i16 0x1\n    v92 = iconst.i32 0x1\n    \
                  v93 = iconst.i64 0x1\n    v94 = vconst 0x1\n    v95 = iconst.f32 0x0\n    \
                  v96 = iconst.f64 0x0\n";
    breaks(
        &format!("block0:\n{consts}    {line}\n    exit_halt\n"),
        what,
    );
}

fn valid() -> Region {
    let body = VALID
        .replace("v8", "v9")
        .replace("block2:\n", "block2:\n    v9 = trunc.i16 v1 ; @0\n");
    let region = parse(&format!("{HEAD}{body}")).expect("valid text");
    assert_eq!(errors_of(&region), Vec::<String>::new());
    region
}

/// What one change of the valid region breaks.
#[track_caller]
fn change_breaks(change: impl FnOnce(&mut Region), what: &str) {
    let mut region = valid();
    change(&mut region);
    let got = errors_of(&region);
    assert!(
        got.iter().any(|e| e.contains(what)),
        "expected an error with \"{what}\", got {got:#?}"
    );
}

#[test]
fn entry() {
    change_breaks(|r| r.blocks.clear(), "no entry block");
    breaks(
        "block0(v1: i64):\n    exit_halt\n",
        "the entry has parameters",
    );
    breaks("block0:\n    br block0\n", "goes to the entry");
}

#[test]
fn terminators() {
    breaks("block0:\n    exit_halt\n    exit_halt\n", "one terminator");
    breaks("block0:\n    v1 = iconst.i8 0x1\n", "one terminator");
    change_breaks(|r| r.blocks[2].insts.clear(), "the block is empty");
}

#[test]
fn params_and_places() {
    change_breaks(
        |r| {
            let p = r.blocks[1].params[0];
            r.blocks[1].insts.insert(0, p);
        },
        "two places",
    );
    change_breaks(
        |r| {
            let p = r.blocks[1].params.remove(0);
            r.blocks[1].insts.insert(0, p);
        },
        "params stand at a block's start",
    );
    change_breaks(
        |r| {
            let v = r.blocks[0].insts.remove(0);
            r.blocks[1].params.push(v);
        },
        "params stand at a block's start",
    );
    change_breaks(|r| r.blocks[0].insts[0] = Value(999), "v999 does not exist");
    change_breaks(
        |r| r.inst_mut(Value(2)).first_arg = 9999,
        "outside the pool",
    );
}

#[test]
fn branches() {
    breaks("block0:\n    br block7\n", "no block 7");
    breaks(
        "block0:\n    v1 = iconst.i8 0x1\n    brif v1, block1, block7\nblock1:\n    exit_halt\n",
        "there is no block7",
    );
    breaks(
        "block0:\n    br block1\nblock1(v1: i64):\n    exit_halt\n",
        "block1's parameters",
    );
    breaks(
        "block0:\n    v2 = iconst.i8 0x1\n    br block1(v2)\nblock1(v1: i64):\n    exit_halt\n",
        "block1's parameters",
    );
    change_breaks(
        |r| {
            let t = r.terminator(Block(0));
            r.inst_mut(t).aux = 77;
        },
        "do not divide",
    );
}

#[test]
fn controlling_types() {
    line_breaks("v1 = add.f32 v95, v95", "add is not of type f32");
    line_breaks("v1 = fadd.i32 v92, v92", "fadd is not of type i32");
    line_breaks("v1 = ftoi.i16 trunc v95", "ftoi is not of type i16");
    change_breaks(
        |r| r.inst_mut(Value(4)).ty = Type::I64,
        "vconst is not of type i64",
    );
}

#[test]
fn operands() {
    line_breaks("v1 = add.i64 v93, v92", "v92 is i32");
    line_breaks("v1 = zext.i64 v95", "v95 is f32");
    line_breaks("v1 = load.i8 data v92", "v92 is i32");
    line_breaks("v1 = select.i64 v92, v93, v93", "v92 is i32");
    line_breaks("trapif 6 v93", "v93 is i64");
    line_breaks("v1 = call.i64 load_segment 0x0 v93", "v93 is i64");
    line_breaks("setflags.i32 sub v92, v93", "v93 is i64");
    change_breaks(|r| r.set_args(Value(2), &[]), "0 operands, not 1");
    change_breaks(
        |r| r.set_args(Value(2), &[Value(888)]),
        "v888 stands in no block",
    );
    change_breaks(
        |r| {
            let t = r.blocks[1].insts[0];
            assert_eq!(r.inst(t).op, Op::SetFlags);
            r.set_args(Value(6), &[t]);
        },
        "has no value",
    );
}

#[test]
fn immediates() {
    change_breaks(|r| r.inst_mut(Value(1)).imm = 99, "no register 99");
    change_breaks(|r| r.inst_mut(Value(7)).imm = 999, "no helper 999");
    change_breaks(|r| r.inst_mut(Value(4)).imm = 5, "no 128-bit constant 5");
    change_breaks(|r| r.inst_mut(Value(6)).imm = 9, "no such shape");
    change_breaks(|r| r.inst_mut(Value(6)).aux = 8, "no lane 8");
    change_breaks(|r| r.inst_mut(Value(3)).imm = 1 << 32, "does not fit");
    change_breaks(
        |r| {
            let t = r.blocks[1].insts[0];
            r.inst_mut(t).imm = 99;
        },
        "no flag kind 99",
    );
    for (line, what) in [
        ("getcond o", "no condition"),
        ("icmp.i8 eq v90, v90", "no comparison"),
        ("fcmp.f32 eq v95, v95", "no comparison"),
        ("load.i8 data v93", "no access kind"),
        ("rmw.i8 add v93, v90", "no rmw operation"),
        ("ftoi.i32 trunc v95", "no rounding"),
        ("vicmp i8x16 eq v94, v94", "no such shape"),
    ] {
        let text = format!(
            "{HEAD}block0:\n    v90 = iconst.i8 0x1\n    v93 = iconst.i64 0x1\n    v94 = vconst 0x1\n    \
             v95 = iconst.f32 0x0\n    v1 = {line}\n    exit_halt\n"
        );
        let mut region = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(errors_of(&region), Vec::<String>::new());
        region.inst_mut(Value(1)).imm = 1000;
        let got = errors_of(&region);
        assert!(got.len() == 1 && got[0].contains(what), "{got:#?}");
        if line.starts_with("vicmp") {
            (region.inst_mut(Value(1)).imm, region.inst_mut(Value(1)).aux) = (0, 1000);
            assert!(errors_of(&region)[0].contains("no comparison"));
        }
    }
    line_breaks("trapif 32 v90", "no exception vector 32");
    line_breaks("v1 = ext.i8 57 v93", "beyond bit 63");
    line_breaks("v1 = ins.i32 33 v93, v92", "beyond bit 63");
    line_breaks("v1 = vdiv i32x4 v94, v94", "vdiv is not defined for i32x4");
    line_breaks(
        "v1 = vavgu i32x4 v94, v94",
        "vavgu is not defined for i32x4",
    );
    line_breaks(
        "v1 = vicmp f32x4 eq v94, v94",
        "vicmp is not defined for f32x4",
    );
}

#[test]
fn types_and_immediates() {
    line_breaks("v1 = getreg.i32 rax", "not the register's");
    line_breaks("setreg.i64 xmm0, v93", "not the register's");
    line_breaks("v1 = call.i32 rdtsc 0x0", "not the helper's result");
    line_breaks("v1 = vsplat.i32 i8x16 v92", "not the lane's");
    line_breaks("v1 = vget.i32 i64x2 0 v94", "not the lane's");
    line_breaks("setflags.i32 raw v92", "setflags raw is i64");
}

#[test]
fn conversions() {
    line_breaks("v1 = zext.i32 v92", "not narrower");
    line_breaks("v1 = sext.i16 v92", "not narrower");
    line_breaks("v1 = trunc.i32 v92", "not wider");
    line_breaks("v1 = bitcast.f64 v92", "sizes differ");
    line_breaks("v1 = fcvt.f32 v95", "other float type");
    line_breaks("v1 = itof.f64 v91", "not i32 or i64");
    line_breaks("v1 = ftoi.i32 trunc v92", "not a float");
    line_breaks("v1 = cas.f32 v93, v95, v95", "cas is not of floats");
    line_breaks("v1 = vfromint.i16 v91", "not i32, i64, f32 or f64");
    change_breaks(|r| r.inst_mut(Value(3)).ty = Type::V128, "not of vectors");
}

#[test]
fn guest_instructions() {
    breaks(
        "block0:\n    v1 = iconst.i8 0x0 ; @1\n    exit_halt ; @0\n",
        "no guest instruction @1",
    );
    change_breaks(|r| r.guest[0].len = 16, "16 bytes");
}

#[test]
fn dominance() {
    breaks(
        "block0:\n    v1 = not.i8 v2\n    v2 = iconst.i8 0x1\n    exit_halt\n",
        "v2 is not defined on every path",
    );
    breaks(
        "block0:\n    v1 = iconst.i8 0x1\n    brif v1, block1, block2\nblock1:\n    v2 = iconst.i8 0x1\n    \
         br block2\nblock2:\n    v3 = not.i8 v2\n    exit_halt\n",
        "v2 is not defined on every path",
    );
    breaks(
        "block0:\n    v1 = not.i8 v1\n    exit_halt\n",
        "v1 is not defined",
    );
}

#[test]
fn state_maps_hold_registers_of_their_types() {
    line_breaks("v1 = load.i64 data v93 [rax: v92]", "v92 is i32");
    assert!(
        errors(
            "block0:\n    v1 = iconst.i64 0x1\n    v2 = vconst 0x1\n    \
             store.i64 data v1, v1 [rax: v1, xmm0: v2]\n    exit_halt\n"
        )
        .is_empty()
    );
    let mut region = valid();
    let text =
        "block0:\n    v1 = iconst.i64 0x1\n    v2 = load.i64 data v1 [rax: v1]\n    exit_halt\n";
    for mask in [0, 1 << 127] {
        region = parse(&format!("{HEAD}{text}")).expect("a region");
        region.state_maps[0] = mask;
        assert!(!errors_of(&region).is_empty(), "{mask:#x}");
    }
    region.state_maps.clear();
    assert!(!errors_of(&region).is_empty());
}
