//! Reads the text form of a region, see [`crate::print`].
//!
//! Empty lines and lines that start with `#` are skipped, and an instruction without `; @n` belongs
//! to the guest instruction of the one before it. Values keep their numbers. The parser checks
//! syntax, names, operand counts and that every used value is defined; all else is the verifier's.

use crate::flags::{Cond, FlagKind};
use crate::guest::{Reg, RegMask};
use crate::helpers::Helper;
use crate::ops::{AccessKind, Control, FloatCc, Imm, IntCc, Op, RmwOp, Round, SyscallKind};
use crate::region::{BlockData, CodeSize, GuestInsn, Inst, Region, Value};
use crate::types::{Shape, Type};
use thiserror::Error;

/// What is wrong with a text, and where.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Value numbers above this are refused: a number reserves memory for all below it.
const MAX_VALUE: u32 = 1 << 20;

/// Reads one region.
///
/// # Errors
/// At the first line that is not what the printer would write.
pub fn parse(text: &str) -> Result<Region, ParseError> {
    let mut reader = Reader {
        region: None,
        defined: Vec::new(),
        unnamed: Vec::new(),
        uses: Vec::new(),
        insn: 0,
    };
    let mut last = 1;
    for (n, line) in text.lines().enumerate() {
        last = n + 1;
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let at = |message| ParseError {
                line: last,
                message,
            };
            reader.line(line, last).map_err(at)?;
        }
    }
    reader.finish(last)
}

type Res<T> = Result<T, String>;

struct Reader {
    region: Option<Region>,
    /// By value number: whether the text defines it.
    defined: Vec<bool>,
    /// Instructions without a value: block, place in it. They get numbers that are free.
    unnamed: Vec<(usize, usize, Inst)>,
    /// Each used value with its line.
    uses: Vec<(Value, usize)>,
    insn: u16,
}

impl Reader {
    fn line(&mut self, line: &str, number: usize) -> Res<()> {
        let mut t = Tokens { rest: line };
        let Some(region) = &mut self.region else {
            t.expect("region")?;
            t.expect("pc")?;
            let pc = t.number()?;
            let code_size = match t.word()? {
                "code16" => CodeSize::Code16,
                "code32" => CodeSize::Code32,
                "code64" => CodeSize::Code64,
                other => return Err(format!("unknown code size {other}")),
            };
            let mut region = Region::new(pc, code_size);
            region.blocks.clear();
            self.region = Some(region);
            return t.end();
        };
        if line.starts_with("guest ") {
            t.expect("guest")?;
            t.expect("@")?;
            if t.number()? != region.guest.len() as u64 {
                return Err(format!("expected @{}", region.guest.len()));
            }
            let offset = t.offset()?;
            t.expect("len")?;
            let len = t.small()?;
            t.expect("fuel")?;
            let fuel_left = t.small()?;
            region.guest.push(GuestInsn {
                offset,
                len,
                fuel_left,
            });
            return t.end();
        }
        if line.starts_with("block") && line.ends_with(':') {
            return self.block(t);
        }
        self.inst(t, number)
    }

    fn block(&mut self, mut t: Tokens<'_>) -> Res<()> {
        let region = self.region.as_mut().ok_or("no region line")?;
        let n = region.blocks.len();
        if t.word()? != format!("block{n}") {
            return Err(format!("expected block{n}"));
        }
        region.blocks.push(BlockData::default());
        if t.eat("(") {
            loop {
                let v = t.value()?;
                t.expect(":")?;
                let ty = t.ty()?;
                let inst = plain(Op::Param, ty, self.insn);
                self.define(v, inst)?;
                let region = self.region.as_mut().ok_or("no region line")?;
                region.blocks[n].params.push(v);
                if !t.eat(",") {
                    break;
                }
            }
            t.expect(")")?;
        }
        t.expect(":")?;
        t.end()
    }

    fn define(&mut self, v: Value, inst: Inst) -> Res<()> {
        let n = v.0 as usize;
        let region = self.region.as_mut().ok_or("no region line")?;
        if self.defined.len() <= n {
            self.defined.resize(n + 1, false);
            // Numbers that the text leaves out become instructions of no block.
            let filler = plain(Op::Const, Type::I64, 0);
            region.insts.resize(n + 1, filler);
        }
        if std::mem::replace(&mut self.defined[n], true) {
            return Err(format!("{v} is defined twice"));
        }
        region.insts[n] = inst;
        Ok(())
    }

    fn inst(&mut self, t: Tokens<'_>, number: usize) -> Res<()> {
        let (body, insn) = match t.rest.split_once(';') {
            Some((body, tail)) => {
                let mut t = Tokens { rest: tail };
                t.expect("@")?;
                let n = t.small()?;
                t.end()?;
                (body, n)
            }
            None => (t.rest, self.insn),
        };
        self.insn = insn;
        let mut t = Tokens { rest: body };
        let mut name = t.word()?;
        let mut target = None;
        if t.eat("=") {
            target = Some(as_value(name)?);
            name = t.word()?;
        }
        let (name, suffix) = match name.split_once('.') {
            Some((name, ty)) => (name, Some(ty)),
            None => (name, None),
        };
        let op = Op::from_name(name).ok_or_else(|| format!("unknown op {name}"))?;
        let info = op.info();
        let ty = match (info.control, suffix) {
            (Control::Only(ty), None) => ty,
            (Control::Only(_), Some(_)) => return Err(format!("{name} takes no type")),
            (_, Some(ty)) => as_type(ty)?,
            (_, None) => return Err(format!("{name} needs a type")),
        };
        let region = self.region.as_mut().ok_or("no region line")?;
        let block = region.blocks.len().checked_sub(1).ok_or("no block yet")?;
        let mut inst = plain(op, ty, insn);
        inst.first_arg = region.pool.len() as u32;
        if matches!(info.imm, Imm::Target | Imm::Targets) {
            targets(&mut t, region, &mut inst)?;
        } else {
            immediate(&mut t, region, &mut inst)?;
            let mut more = !t.is_empty() && (info.imm != Imm::Reg || t.eat(","));
            while more {
                region.pool.push(t.value()?);
                more = t.eat(",");
            }
            if op.takes_state_map() && t.eat("[") {
                inst.aux = state_map(&mut t, region)?;
            }
        }
        t.end()?;
        let args = &region.pool[inst.first_arg as usize..];
        inst.nargs = u16::try_from(args.len()).map_err(|_| "too many operands")?;
        self.uses.extend(args.iter().map(|&v| (v, number)));
        match (target, info.result) {
            (Some(v), Some(_)) => {
                self.define(v, inst)?;
                let region = self.region.as_mut().ok_or("no region line")?;
                region.blocks[block].insts.push(v);
                if let Some(count) = region.operand_count(v) {
                    counted(&inst, count)?;
                }
            }
            (None, None) => {
                // The place is filled when all the text's numbers are known.
                let data = &mut region.blocks[block].insts;
                self.unnamed.push((block, data.len(), inst));
                data.push(Value(u32::MAX));
                region.insts.push(inst);
                let probe = Value(region.insts.len() as u32 - 1);
                let count = region.operand_count(probe);
                region.insts.pop();
                if let Some(count) = count {
                    counted(&inst, count)?;
                }
            }
            (Some(_), None) => return Err(format!("{name} gives no value")),
            (None, Some(_)) => return Err(format!("{name} gives a value")),
        }
        Ok(())
    }

    fn finish(self, last: usize) -> Result<Region, ParseError> {
        let error = |line, message: String| ParseError { line, message };
        let mut region = self
            .region
            .ok_or_else(|| error(last, "no region line".into()))?;
        if region.blocks.is_empty() {
            return Err(error(last, "no block".into()));
        }
        for (v, line) in self.uses {
            if !self.defined.get(v.0 as usize).copied().unwrap_or(false) {
                return Err(error(line, format!("{v} is not defined")));
            }
        }
        let mut free = 0;
        for (block, place, inst) in self.unnamed {
            while self.defined.get(free).copied().unwrap_or(false) {
                free += 1;
            }
            if free == region.insts.len() {
                region.insts.push(inst);
            }
            region.insts[free] = inst;
            region.blocks[block].insts[place] = Value(free as u32);
            free += 1;
        }
        Ok(region)
    }
}

fn counted(inst: &Inst, count: usize) -> Res<()> {
    if inst.nargs as usize == count {
        Ok(())
    } else {
        Err(format!("{} takes {count} operands", inst.op))
    }
}

fn plain(op: Op, ty: Type, insn: u16) -> Inst {
    Inst {
        op,
        ty,
        insn,
        nargs: 0,
        first_arg: 0,
        aux: 0,
        imm: 0,
    }
}

/// The condition of a two-way branch, and the targets with their arguments.
fn targets(t: &mut Tokens<'_>, region: &mut Region, inst: &mut Inst) -> Res<()> {
    let two = inst.op.info().imm == Imm::Targets;
    if two {
        region.pool.push(t.value()?);
        t.expect(",")?;
    }
    for side in 0..=u32::from(two) {
        if side == 1 {
            t.expect(",")?;
        }
        let name = t.word()?;
        let block = name
            .strip_prefix("block")
            .and_then(|n| n.parse::<u32>().ok());
        let block = block.ok_or_else(|| format!("expected a block, not {name}"))?;
        inst.imm |= u64::from(block) << (32 * side);
        let before = region.pool.len();
        if t.eat("(") {
            region.pool.push(t.value()?);
            while t.eat(",") {
                region.pool.push(t.value()?);
            }
            t.expect(")")?;
        }
        if two && side == 0 {
            inst.aux = (region.pool.len() - before) as u32;
        }
    }
    Ok(())
}

/// The rest of a state map; puts its values into the pool. Its number, plus 1.
fn state_map(t: &mut Tokens<'_>, region: &mut Region) -> Res<u32> {
    let mut mask: RegMask = 0;
    loop {
        let name = t.word()?;
        let r = Reg::from_name(name).ok_or_else(|| format!("unknown Reg {name}"))?;
        if r.bit() <= mask {
            return Err("the registers of a state map ascend".into());
        }
        mask |= r.bit();
        t.expect(":")?;
        region.pool.push(t.value()?);
        if !t.eat(",") {
            break;
        }
    }
    t.expect("]")?;
    region.state_maps.push(mask);
    Ok(region.state_maps.len() as u32)
}

/// The immediates, by the op's [`Imm`].
fn immediate(t: &mut Tokens<'_>, region: &mut Region, inst: &mut Inst) -> Res<()> {
    macro_rules! named {
        ($ty:ident) => {{
            let name = t.word()?;
            let found = $ty::ALL.iter().find(|x| x.name() == name);
            *found.ok_or_else(|| format!("unknown {} {name}", stringify!($ty)))? as u64
        }};
    }
    match inst.op.info().imm {
        Imm::None | Imm::Target | Imm::Targets => {}
        Imm::Bits | Imm::BitOffset | Imm::Count | Imm::Vector => inst.imm = t.number()?,
        Imm::V128 => {
            inst.imm = region.vconsts.len() as u64;
            region.vconsts.push(t.wide()?);
        }
        Imm::Reg => inst.imm = named!(Reg),
        Imm::Cond => inst.imm = named!(Cond),
        Imm::IntCc => inst.imm = named!(IntCc),
        Imm::FloatCc => inst.imm = named!(FloatCc),
        Imm::Flags => inst.imm = named!(FlagKind),
        Imm::Helper => {
            inst.imm = named!(Helper);
            inst.aux = t.small()?;
        }
        Imm::Access => inst.imm = named!(AccessKind),
        Imm::Rmw => inst.imm = named!(RmwOp),
        Imm::Shape => inst.imm = named!(Shape),
        Imm::Lane => {
            inst.imm = named!(Shape);
            inst.aux = t.small()?;
        }
        Imm::ShapeFloatCc => {
            inst.imm = named!(Shape);
            inst.aux = named!(FloatCc) as u32;
        }
        Imm::ShapeIntCc => {
            inst.imm = named!(Shape);
            inst.aux = named!(IntCc) as u32;
        }
        Imm::Round => inst.imm = named!(Round),
        Imm::Pc => inst.imm = t.offset()? as u64,
        Imm::PcPair => {
            inst.imm = t.offset()? as u64;
            inst.aux = t.short_offset()?;
        }
        Imm::RetPc => inst.aux = t.short_offset()?,
        Imm::Syscall => {
            inst.imm = named!(SyscallKind);
            inst.aux = t.short_offset()?;
        }
    }
    Ok(())
}

fn as_value(word: &str) -> Res<Value> {
    let n = word.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    match n {
        Some(n) if n < MAX_VALUE => Ok(Value(n)),
        _ => Err(format!("expected a value, not {word}")),
    }
}

fn as_type(word: &str) -> Res<Type> {
    let found = Type::ALL.into_iter().find(|ty| ty.name() == word);
    found.ok_or_else(|| format!("unknown type {word}"))
}

/// What is left of a line.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn is_empty(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.is_empty()
    }

    fn eat(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) -> Res<()> {
        if self.eat(text) {
            Ok(())
        } else {
            Err(format!("expected {text} at \"{}\"", self.rest))
        }
    }

    /// A name or number: up to white space or punctuation.
    fn word(&mut self) -> Res<&'a str> {
        self.rest = self.rest.trim_start();
        let stop = |c: char| c.is_whitespace() || "=,():;[]".contains(c);
        let end = self.rest.find(stop).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("expected a word at \"{}\"", self.rest));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    fn end(&mut self) -> Res<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(format!("unexpected \"{}\"", self.rest))
        }
    }

    fn value(&mut self) -> Res<Value> {
        as_value(self.word()?)
    }

    fn ty(&mut self) -> Res<Type> {
        as_type(self.word()?)
    }

    fn wide(&mut self) -> Res<u128> {
        let word = self.word()?;
        let parsed = match word.strip_prefix("0x") {
            Some(hex) => u128::from_str_radix(hex, 16),
            None => word.parse(),
        };
        parsed.map_err(|_| format!("expected a number, not {word}"))
    }

    fn number(&mut self) -> Res<u64> {
        self.small()
    }

    fn small<T: TryFrom<u128>>(&mut self) -> Res<T> {
        T::try_from(self.wide()?).map_err(|_| "number too large".into())
    }

    fn offset(&mut self) -> Res<i64> {
        let negative = self.eat("-");
        if !negative {
            self.expect("+")?;
        }
        let n: u64 = self.number()?;
        let max = i64::MAX as u64 + u64::from(negative);
        if n > max {
            return Err("offset too large".into());
        }
        let n = n as i64;
        Ok(if negative { n.wrapping_neg() } else { n })
    }

    fn short_offset(&mut self) -> Res<u32> {
        let n = self.offset()?;
        let n = i32::try_from(n).map_err(|_| "offset too large")?;
        Ok(n as u32)
    }
}
