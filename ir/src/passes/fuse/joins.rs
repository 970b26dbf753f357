//! Conditions where several flag definitions arrive: each way there evaluates the condition for its
//! own definition and passes the outcome as a block parameter. On demand, like
//! [`crate::passes::forward`] does with registers.

use crate::cfg::Cfg;
use crate::flags::Cond;
use crate::ops::Op;
use crate::passes::emit::{Emit, append_params};
use crate::region::{Block, Region, Value};
use crate::types::Type;
use std::collections::HashMap;

/// What reaches where: for each block the definition at its end, and at its start.
pub(super) struct Reaching {
    /// `None` if the block leaves the flags alone, `Some(None)` if it makes them unknown.
    pub exit: Vec<Option<Option<Value>>>,
    /// The only definition that arrives.
    pub start: Vec<Option<Value>>,
    /// Whether there is a definition on every path.
    pub complete: Vec<bool>,
}

/// Gives each `getcond` in `wanted`, which asks for the flags that its block starts with, its value
/// from parameters. The flags must be complete there.
pub(super) fn join(
    region: &mut Region,
    cfg: &Cfg,
    reaching: &Reaching,
    wanted: &[(Block, Value, Cond)],
) {
    if wanted.is_empty() {
        return;
    }
    let mut joins = Joins {
        region,
        cfg,
        reaching,
        params: Vec::new(),
        starts: HashMap::new(),
        ends: HashMap::new(),
    };
    for &(b, v, cond) in wanted {
        let param = joins.at_start(b, cond);
        joins.region.replace_with_copy(v, param);
    }
    let Joins {
        mut params, ends, ..
    } = joins;
    params.sort_unstable_by_key(|&(b, v, _)| (b, v));
    append_params(region, cfg, &params, |from, cond| ends[&(from, cond)]);
}

struct Joins<'r> {
    region: &'r mut Region,
    cfg: &'r Cfg,
    reaching: &'r Reaching,
    params: Vec<(Block, Value, Cond)>,
    starts: HashMap<(Block, Cond), Value>,
    ends: HashMap<(Block, Cond), Value>,
}

impl Joins<'_> {
    fn at_start(&mut self, b: Block, cond: Cond) -> Value {
        if let Some(&v) = self.starts.get(&(b, cond)) {
            return v;
        }
        let param = self.region.make(Op::Param, Type::I8, 0, &[], 0, 0);
        self.starts.insert((b, cond), param);
        self.params.push((b, param, cond));
        let cfg = self.cfg;
        for &p in cfg.preds(b) {
            if !self.ends.contains_key(&(p, cond)) {
                let v = self.at_end(p, cond);
                self.ends.insert((p, cond), v);
            }
        }
        param
    }

    fn at_end(&mut self, b: Block, cond: Cond) -> Value {
        let n = b.0 as usize;
        let Some(def) = self.reaching.exit[n].unwrap_or(self.reaching.start[n]) else {
            return self.at_start(b, cond);
        };
        let t = self.region.terminator(b);
        let mut out = std::mem::take(&mut self.region.blocks[n].insts);
        out.pop();
        let mut e = Emit {
            insn: self.region.inst(t).insn,
            region: self.region,
            out,
        };
        let test = e.condition(def, cond);
        let v = e.test_value(test);
        let mut out = std::mem::take(&mut e.out);
        out.push(t);
        self.region.blocks[n].insts = out;
        v
    }
}
