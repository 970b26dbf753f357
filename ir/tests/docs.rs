//! `docs/ir.md` shows the tables of the code as they are, and the files it names exist.
//!
//! `BLESS=1 cargo test -p metaphrase-ir --test docs` writes the tables anew.

use metaphrase_ir::ops::{Control, Operands};
use metaphrase_ir::{
    AccessKind, Class, Cond, Effect, FlagKind, FloatCc, Helper, Imm, IntCc, Op, Reg, RmwOp, Round,
    Shape, SyscallKind, Type,
};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const MARK: &str = "<!-- generated: everything below this line -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn class(c: Class) -> String {
    match c {
        Class::Ctl => "T".into(),
        Class::Int => "int".into(),
        Class::Any => "any".into(),
        Class::Is(ty) => ty.name().into(),
    }
}

fn control(c: Control) -> String {
    match c {
        Control::Only(_) => String::new(),
        Control::AnyInt => "int".into(),
        Control::WideInt => "i32, i64".into(),
        Control::AnyFloat => "f32, f64".into(),
        Control::AnyType => "any".into(),
    }
}

fn operands(op: Op) -> String {
    let info = op.info();
    let fixed = |c: &Class| match (info.control, *c) {
        (Control::Only(ty), Class::Ctl) => ty.name().to_string(),
        (_, c) => class(c),
    };
    match info.operands {
        Operands::Fixed(classes) => {
            let list: Vec<String> = classes.iter().map(fixed).collect();
            list.join(", ")
        }
        Operands::Flags => "T as the kind takes".into(),
        Operands::Helper => "the helper's".into(),
        Operands::Branch if info.imm == Imm::Targets => "i8, arguments".into(),
        Operands::Branch => "arguments".into(),
    }
}

fn result(op: Op) -> String {
    match (op.info().control, op.info().result) {
        (_, None) => String::new(),
        (Control::Only(ty), Some(Class::Ctl)) => ty.name().into(),
        (_, Some(c)) => class(c),
    }
}

fn immediate(imm: Imm) -> &'static str {
    match imm {
        Imm::None => "",
        Imm::Bits | Imm::V128 => "bits",
        Imm::Reg => "register",
        Imm::Cond => "condition",
        Imm::IntCc | Imm::FloatCc => "comparison",
        Imm::Flags => "flag kind",
        Imm::Helper => "helper, descriptor",
        Imm::Access => "access kind",
        Imm::Rmw => "operation",
        Imm::Shape => "shape",
        Imm::Lane => "shape, lane",
        Imm::ShapeFloatCc | Imm::ShapeIntCc => "shape, comparison",
        Imm::BitOffset => "bit offset",
        Imm::Count => "count",
        Imm::Round => "rounding",
        Imm::Pc => "PC offset",
        Imm::PcPair => "two PC offsets",
        Imm::RetPc => "return PC offset",
        Imm::Vector => "vector",
        Imm::Syscall => "kind, next PC offset",
        Imm::Target => "block",
        Imm::Targets => "two blocks",
    }
}

fn effect(e: Effect) -> &'static str {
    match e {
        Effect::Pure => "",
        Effect::Float => "MXCSR flags",
        Effect::ReadState => "reads state",
        Effect::WriteState => "writes state",
        Effect::Load => "load",
        Effect::Store => "store",
        Effect::MayExit => "may exit",
        Effect::Helper => "the helper's",
        Effect::Branch => "branch",
        Effect::Exit => "exit",
    }
}

fn names<T: Copy>(of: &[T], name: impl Fn(T) -> &'static str) -> String {
    let list: Vec<String> = of.iter().map(|&x| format!("`{}`", name(x))).collect();
    list.join(", ")
}

fn tables() -> String {
    let mut t = String::from(
        "\n### Ops\n`T` is the controlling type. Shift counts are taken modulo the width, except for vectors.\n\n| op | T | operands | result | immediate | effect | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    let mut row = |op: Op| {
        let info = op.info();
        writeln!(
            t,
            "| `{}` | {} | {} | {} | {} | {} | {} |",
            info.name,
            control(info.control),
            operands(op),
            result(op),
            immediate(info.imm),
            effect(info.effect),
            info.doc
        )
    };
    Op::ALL
        .iter()
        .try_for_each(|&op| row(op))
        .expect("a string");
    t += "\n### Helpers\n| helper | arguments | result |\n|---|---|---|\n";
    for &h in Helper::ALL {
        let args: Vec<&str> = h.args().iter().map(|ty| ty.name()).collect();
        writeln!(t, "| `{h}` | {} | {} |", args.join(", "), h.result()).expect("a string");
    }
    t += "\n### Names\n";
    let mut list = |what: &str, names: String| writeln!(t, "- {what}: {names}.").expect("a string");
    list("Types", names(&Type::ALL, Type::name));
    list("Shapes", names(&Shape::ALL, Shape::name));
    list("Registers", names(Reg::ALL, Reg::name));
    list("Flag kinds", names(FlagKind::ALL, FlagKind::name));
    list("Conditions", names(&Cond::ALL, Cond::name));
    list("Integer comparisons", names(IntCc::ALL, IntCc::name));
    list("Float comparisons", names(FloatCc::ALL, FloatCc::name));
    list("Access kinds", names(AccessKind::ALL, AccessKind::name));
    list("Atomic operations", names(RmwOp::ALL, RmwOp::name));
    list("Roundings", names(Round::ALL, Round::name));
    list("System calls", names(SyscallKind::ALL, SyscallKind::name));
    t
}

#[test]
fn the_page_shows_the_tables() {
    let path = root().join("docs/ir.md");
    let page = std::fs::read_to_string(&path).expect("docs/ir.md");
    let (text, shown) = page.split_once(MARK).expect("the mark");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{text}{MARK}{}", tables())).expect("docs/ir.md");
        return;
    }
    for &op in Op::ALL {
        assert!(
            shown.contains(&format!("| `{op}` |")),
            "{op} is not in docs/ir.md"
        );
    }
    assert!(shown == tables(), "docs/ir.md is out of date: bless it");
}

#[test]
fn the_page_names_files_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/ir.md")).expect("docs/ir.md");
    let named = page
        .split('`')
        .filter(|s| s.ends_with(".rs") && !s.contains(' '));
    let mut seen = 0;
    for path in named {
        seen += 1;
        assert!(root().join(path).exists(), "docs/ir.md names {path}");
    }
    assert!(seen > 10);
}

#[test]
fn the_page_shows_a_valid_region() {
    let page = std::fs::read_to_string(root().join("docs/ir.md")).expect("docs/ir.md");
    let text = page.split("```").nth(1).expect("an example").trim_start();
    let region = metaphrase_ir::parse(text).expect("the example parses");
    metaphrase_ir::verify(&region).expect("the example is valid");
    assert_eq!(region.to_string(), text);
}
