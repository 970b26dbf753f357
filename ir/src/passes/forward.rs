//! Guest-state forwarding: `getreg`s become the values that were last written or read, through
//! joins and loops by block parameters; then `setreg`s that nobody can observe go.
//!
//! The memory stays current wherever the lifter made it current: a `setreg` is dropped only if it
//! is overwritten before every observer, see [`super::liveness`]. `fuel` and `trapif` count as
//! observers although their exits are cold.
//!
//! SSA is built on demand, as in Braun et al., "Simple and Efficient Construction of Static Single
//! Assignment Form": a register gets a parameter at a join only if it is read below and its values
//! differ. What a register holds at the region's entry, and after a helper that writes it, is
//! itself a `getreg`, made there when something below needs it.

use super::emit::append_params;
use super::liveness::{REGS, bit, drop_dead_writes, side_writes};
use crate::cfg::{Cfg, prune_unreachable};
use crate::guest::{Reg, RegMask};
use crate::ops::Op;
use crate::region::{Block, Region, Value};

/// Runs the pass.
pub fn forward(region: &mut Region) {
    let cfg = prune_unreachable(region);
    forward_with(region, &cfg, &[], REGS);
    drop_dead_writes(region, &cfg, REGS);
}

/// What a `setreg` is for, where a pass has something else in mind than [`forward`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Role {
    /// It writes the register; dropped if it writes what is there.
    #[default]
    Plain,
    /// It says what the register holds from here on, and goes.
    Define,
    /// It writes to memory what the register holds, and stays.
    Flush,
}

/// Gives every `getreg` its value. `roles`, by value, says what `setreg`s are for; `in_memory` are
/// the registers whose value is also in memory wherever they are read.
pub(super) fn forward_with(region: &mut Region, cfg: &Cfg, roles: &[Role], in_memory: RegMask) {
    let mut f = Forward {
        last: vec![NONE; region.blocks.len() * Reg::COUNT],
        first: Vec::new(),
        open: Vec::new(),
        params: Vec::new(),
        made: Vec::new(),
        same: Vec::new(),
        region,
        cfg,
        roles,
        in_memory,
    };
    for &b in &cfg.rpo {
        f.within(b);
    }
    if !f.open.is_empty() {
        f.across();
    }
}

/// No value is known: the block does not touch the register.
const NONE: Value = Value(u32::MAX);
/// A helper (or a flag op) of the block wrote the register, and nothing has read it since.
const WRITTEN: Value = Value(u32::MAX - 1);

struct Forward<'r> {
    region: &'r mut Region,
    cfg: &'r Cfg,
    roles: &'r [Role],
    in_memory: RegMask,
    /// By block and register: the value at the block's end.
    last: Vec<Value>,
    /// By block and register: the value at the block's start, where one was asked for.
    first: Vec<Value>,
    /// The `getreg`s that read what their block started with.
    open: Vec<(Block, Value, Reg)>,
    /// The parameters made.
    params: Vec<(Block, Value, Reg)>,
    /// The `getreg`s made: where to put each, and itself.
    made: Vec<(Block, Place, Value)>,
    /// By value: the value that it turned out to be.
    same: Vec<Value>,
}

/// Where an instruction is put into its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    After(Value),
}

fn slot(b: Block, r: Reg) -> usize {
    b.0 as usize * Reg::COUNT + r as usize
}

impl Forward<'_> {
    /// Forwards inside one block.
    fn within(&mut self, b: Block) {
        let mut insts = std::mem::take(&mut self.region.blocks[b.0 as usize].insts);
        let base = slot(b, Reg::ALL[0]);
        insts.retain(|&v| {
            let inst = *self.region.inst(v);
            match inst.op {
                Op::GetReg => {
                    let known = &mut self.last[base + inst.imm as usize];
                    match *known {
                        NONE | WRITTEN => {
                            if *known == NONE && b != Region::ENTRY {
                                self.open.push((b, v, Reg::ALL[inst.imm as usize]));
                            }
                            *known = v;
                        }
                        of => self.region.replace_with_copy(v, of),
                    }
                }
                Op::SetReg => {
                    let x = self.region.uncopied(self.region.args(v)[0]);
                    let known = &mut self.last[base + inst.imm as usize];
                    let role = self.roles.get(v.0 as usize).copied();
                    match role.unwrap_or_default() {
                        Role::Plain if *known == x => return false,
                        Role::Plain => *known = x,
                        Role::Define => {
                            *known = x;
                            return false;
                        }
                        Role::Flush => {}
                    }
                }
                Op::Call | Op::SetFlags | Op::Fuel | Op::Spend => {
                    let mut mask = side_writes(self.region, v);
                    while mask != 0 {
                        self.last[base + mask.trailing_zeros() as usize] = WRITTEN;
                        mask &= mask - 1;
                    }
                }
                _ => {}
            }
            true
        });
        self.region.blocks[b.0 as usize].insts = insts;
    }

    /// Forwards across blocks: gives every open `getreg` its value.
    fn across(&mut self) {
        self.first = vec![NONE; self.last.len()];
        let open = std::mem::take(&mut self.open);
        for &(b, _, r) in &open {
            self.at_start(b, r);
        }
        self.same = (0..self.region.insts.len() as u32).map(Value).collect();
        for &(b, v, r) in &open {
            self.same[v.0 as usize] = self.first[slot(b, r)];
        }
        self.merge_params();
        self.undo_single(&open);
        for (b, v, _) in open {
            let of = self.find(v);
            if of != v {
                debug_assert!(self.cfg.is_reachable(b));
                self.region.replace_with_copy(v, of);
            }
        }
        self.place_params();
        self.place_made();
    }

    /// The value of `r` at the start of `b`.
    fn at_start(&mut self, b: Block, r: Reg) -> Value {
        let known = self.first[slot(b, r)];
        if known != NONE {
            return known;
        }
        let cfg = self.cfg;
        let preds = cfg.preds(b);
        if preds.iter().all(|p| *p == preds[0]) {
            let v = self.at_end(preds[0], r);
            self.first[slot(b, r)] = v;
            return v;
        }
        let param = self.region.make(Op::Param, r.ty(), 0, &[], 0, 0);
        self.first[slot(b, r)] = param;
        self.params.push((b, param, r));
        for &p in preds {
            self.at_end(p, r);
        }
        param
    }

    /// The value of `r` at the end of `b`.
    fn at_end(&mut self, b: Block, r: Reg) -> Value {
        let v = match self.last[slot(b, r)] {
            NONE if b == Region::ENTRY => self.make_getreg(b, Place::Start, r),
            NONE => self.at_start(b, r),
            WRITTEN => {
                let insts = self.region.blocks[b.0 as usize].insts.iter().rev();
                let mut writers = insts.filter(|&&v| side_writes(self.region, v) & bit(r) != 0);
                let place = writers.next().map_or(Place::Start, |&v| Place::After(v));
                self.make_getreg(b, place, r)
            }
            v => v,
        };
        self.last[slot(b, r)] = v;
        v
    }

    fn make_getreg(&mut self, b: Block, place: Place, r: Reg) -> Value {
        let insn = match place {
            Place::Start => {
                let first = self.region.blocks[b.0 as usize].insts[0];
                self.region.inst(first).insn
            }
            Place::After(v) => self.region.inst(v).insn,
        };
        let v = self.region.make(Op::GetReg, r.ty(), insn, &[], r as u64, 0);
        self.made.push((b, place, v));
        v
    }

    fn find(&mut self, v: Value) -> Value {
        find(&mut self.same, v)
    }

    /// Drops parameters that get the same value on every edge, until none is left.
    fn merge_params(&mut self) {
        let mut params = std::mem::take(&mut self.params);
        let cfg = self.cfg;
        let mut before = usize::MAX;
        while params.len() < before {
            before = params.len();
            params.retain(|&(b, param, r)| {
                let mut only = None;
                for &p in cfg.preds(b) {
                    let v = self.find(self.last[slot(p, r)]);
                    if v != param && *only.get_or_insert(v) != v {
                        return true;
                    }
                }
                // A reachable join gets at least one value that is not itself.
                if let Some(v) = only {
                    self.same[param.0 as usize] = v;
                }
                only.is_none()
            });
        }
        self.params = params;
    }

    /// A `getreg` made at the entry for a single read elsewhere is no gain, unless the read is in
    /// a loop: leaves that one where it was.
    fn undo_single(&mut self, open: &[(Block, Value, Reg)]) {
        let cfg = self.cfg;
        let loops: Vec<(u32, u32)> = cfg.loops().collect();
        // Each `getreg` made at the entry, and how often it is needed; 2 is often enough.
        let at_entry =
            |&&(b, place, _): &&(Block, Place, Value)| b == Region::ENTRY && place == Place::Start;
        let made = self.made.iter().filter(at_entry);
        let mut uses: Vec<(Value, u32)> = made.map(|&(.., v)| (v, 0)).collect();
        let mut count = |of: Value, n: u32| {
            if let Some((_, uses)) = uses.iter_mut().find(|(v, _)| *v == of) {
                *uses += n;
            }
        };
        for i in 0..self.params.len() {
            let (b, _, r) = self.params[i];
            for &p in cfg.preds(b) {
                count(self.find(self.last[slot(p, r)]), 2);
            }
        }
        for &(b, v, _) in open {
            let at = cfg.order[b.0 as usize];
            let in_loop = loops.iter().any(|&(from, to)| from <= at && at <= to);
            count(self.find(v), if in_loop { 2 } else { 1 });
        }
        for &(_, v, r) in open {
            let of = self.find(v);
            if self.in_memory & bit(r) != 0 && uses.contains(&(of, 1)) {
                self.made.retain(|&(.., made)| made != of);
                self.same[v.0 as usize] = v;
            }
        }
    }

    /// Puts the parameters into their blocks and their values into the branches.
    fn place_params(&mut self) {
        if self.params.is_empty() {
            return;
        }
        let mut params = std::mem::take(&mut self.params);
        params.sort_unstable_by_key(|&(b, v, _)| (b, v));
        let Forward {
            region,
            cfg,
            last,
            same,
            ..
        } = self;
        append_params(region, cfg, &params, |from, r| {
            find(same, last[slot(from, r)])
        });
    }

    fn place_made(&mut self) {
        for (b, place, v) in std::mem::take(&mut self.made) {
            let insts = &mut self.region.blocks[b.0 as usize].insts;
            let at = match place {
                Place::Start => 0,
                Place::After(call) => insts.iter().position(|&i| i == call).map_or(0, |n| n + 1),
            };
            insts.insert(at, v);
        }
    }
}

/// What `v` turned out to be.
fn find(same: &mut [Value], v: Value) -> Value {
    let mut root = v;
    while same[root.0 as usize] != root {
        root = same[root.0 as usize];
    }
    let mut v = v;
    while v != root {
        v = std::mem::replace(&mut same[v.0 as usize], root);
    }
    root
}
