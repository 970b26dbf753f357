//! The text form: what the parser refuses, and that every op prints and parses.

use metaphrase_ir::{
    CodeSize, FlagKind, GuestInsn, Helper, Imm, Op, Region, Type, Value, parse, print::InstText,
};

#[test]
fn errors_name_the_line() {
    let head = "region pc 0x0 code64\nguest @0 +0x0 len 1 fuel 1\nblock0:\n";
    for (line, message) in [
        ("v1 = bogus.i64 v2", "unknown op bogus"),
        ("v1 = add v2, v3", "add needs a type"),
        ("v1 = pc.i64 +0x0", "pc takes no type"),
        ("v1 = add.i65 v2, v3", "unknown type i65"),
        ("v1 = add.i64 v2", "add takes 2 operands"),
        ("v1 = getreg.i64 rxx", "unknown Reg rxx"),
        ("setreg.i64 rax v1", "unexpected \"v1\""),
        ("add.i64 v1, v1", "add gives a value"),
        ("v1 = exit_halt", "exit_halt gives no value"),
        (
            "v99999999 = iconst.i8 0x0",
            "expected a value, not v99999999",
        ),
        ("v1 = iconst.i8 zero", "expected a number, not zero"),
        ("v1 = pc 0x5", "expected + at \"0x5\""),
        ("br entry", "expected a block, not entry"),
        ("exit_halt ; @99999", "number too large"),
        ("block2:", "expected block1"),
        ("exit_ijump v5", "v5 is not defined"),
        (
            "v1 = load.i64 data v2 [rcx: v3, rax: v4]",
            "the registers of a state map ascend",
        ),
        ("fence [rax: v1]", "expected a word at \"[rax: v1]\""),
        ("v1 = load.i64 data v2 [rax: v3", "expected ] at \"\""),
        (
            "v1 = iconst.i8 0x0\nv1 = iconst.i8 0x0",
            "v1 is defined twice",
        ),
    ] {
        let e = parse(&format!("{head}{line}\n")).expect_err(line);
        let at = 3 + line.lines().count();
        assert_eq!((e.line, e.message.as_str()), (at, message), "{line}");
    }
    assert_eq!(parse("").expect_err("empty").message, "no region line");
    assert_eq!(
        parse("region pc 0x0 code64").expect_err("empty").message,
        "no block"
    );
    assert_eq!(parse("region pc 0x0 code8").expect_err("size").line, 1);
}

/// An instruction of that op with some immediate and operands, all of them `v0` or `v1`.
fn any_inst(region: &mut Region, op: Op) -> Value {
    let ty = match op.info().control {
        metaphrase_ir::ops::Control::Only(ty) => ty,
        metaphrase_ir::ops::Control::AnyFloat => Type::F64,
        _ => Type::I32,
    };
    let (imm, aux) = match op.info().imm {
        Imm::None => (0, 0),
        Imm::Flags => (FlagKind::Adc as u64, 0),
        Imm::Helper => (Helper::RepString as u64, 0x1234_5678),
        Imm::Lane | Imm::ShapeFloatCc | Imm::ShapeIntCc => (2, 3),
        Imm::Pc => (-5i64 as u64, 0),
        Imm::PcPair => (i64::MIN as u64, -1i32 as u32),
        Imm::RetPc => (0, 0x7fff_ffff),
        Imm::Syscall => (1, 2),
        Imm::Targets => (1 << 32, 1),
        Imm::V128 | Imm::Target => (0, 0),
        _ => (1, 0),
    };
    let v = region.make(op, ty, 0, &[], imm, aux);
    let count = region.operand_count(v).unwrap_or(3);
    let args: Vec<Value> = (0..count).map(|n| Value(n as u32 & 1)).collect();
    region.set_args(v, &args);
    v
}

#[test]
fn every_op_prints_and_parses() {
    for &op in Op::ALL {
        if op == Op::Param {
            continue;
        }
        let mut region = Region::new(0xffff_ffff_8000_0000, CodeSize::Code16);
        region.vconsts.push(u128::MAX - 1);
        region.guest.push(GuestInsn {
            offset: -3,
            len: 15,
            fuel_left: 9,
        });
        for n in 0..2 {
            let v = region.make(Op::Const, Type::I64, 0, &[], n, 0);
            region.blocks[0].insts.push(v);
        }
        let v = any_inst(&mut region, op);
        region.blocks[0].insts.push(v);
        region.blocks.push(Default::default());
        let text = region.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(again.to_string(), text);
        let at = again.blocks[0].insts[2];
        let (was, is) = (*region.inst(v), *again.inst(at));
        assert_eq!((was.op, was.ty, was.aux), (is.op, is.ty, is.aux), "{text}");
        assert_eq!(was.imm, is.imm, "{text}");
        assert!(InstText(&again, at).to_string().contains(op.info().name));
    }
}
