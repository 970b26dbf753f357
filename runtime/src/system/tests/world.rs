//! The literal model goes on: far CALL, RET, INT n and IRET of protected and IA-32e mode, with
//! the memory and registers that they change.

use super::model::{Fields, Jump, Model, Refusal};
use super::world_stack::Stack;

const TS: u8 = 10;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;

/// The registers that transfers change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers {
    pub cs: u16,
    pub ss: u16,
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub cpl: u64,
    /// ES, DS, FS, GS: all of them of level 0, or of 3 at CPL 3.
    pub data: [u16; 4],
}

/// What the instructions see.
pub struct World {
    pub model: Model,
    pub memory: Vec<u8>,
    pub registers: Registers,
    pub gdt: u64,
    pub ldt: u64,
    pub idt: u64,
    pub idt_limit: u64,
    pub tss: u64,
    pub tss_limit: u64,
    pub tss_selector: u16,
    /// A 32-bit TSS rather than a 16-bit one, outside IA-32e mode.
    pub tss32: bool,
}

fn error(selector: u16) -> u32 {
    u32::from(selector) / 4 * 4
}

pub(super) fn canonical(address: u64) -> bool {
    matches!(address >> 47, 0 | 0x1_ffff)
}

impl World {
    pub(super) fn read(&self, address: u64, bytes: u64) -> u64 {
        let mut value = 0;
        for n in 0..bytes {
            let byte = self.memory.get((address + n) as usize).copied();
            value += u64::from(byte.unwrap_or(0xff)) << (8 * n);
        }
        value
    }

    pub(super) fn write(&mut self, address: u64, bytes: u64, value: u64) {
        for n in 0..bytes {
            if let Some(byte) = self.memory.get_mut((address + n) as usize) {
                *byte = (value >> (8 * n)) as u8;
            }
        }
    }

    fn accessed(&mut self, selector: u16) {
        let table = if selector & 4 != 0 {
            self.ldt
        } else {
            self.gdt
        };
        let at = table + u64::from(selector) / 8 * 8 + 5;
        let byte = self.read(at, 1) | 1;
        self.write(at, 1, byte);
    }

    /// RSP := the stack's pointer, `whole` having what lies above 16 bits.
    fn take_pointer(&mut self, stack: &Stack, whole: u64) {
        self.registers.rsp = match stack.width {
            16 => whole / 0x1_0000 * 0x1_0000 + stack.pointer,
            _ => stack.pointer,
        };
    }

    fn offset_refused(&self, d: &Fields, rip: u64) -> bool {
        if self.model.ia32e && d.l {
            !canonical(rip)
        } else {
            rip > d.limit
        }
    }

    /// SS:ESP of an inner level out of the TSS, with the checks that CALL and INT make.
    fn inner(&mut self, cpl: u64) -> Result<(u16, u64, Stack), Refusal> {
        let short = Err((TS, error(self.tss_selector)));
        let (selector, pointer) = if self.tss32 {
            let at = cpl * 8 + 4;
            if at + 5 > self.tss_limit {
                return short;
            }
            let at = self.tss + at;
            (self.read(at + 4, 2) as u16, self.read(at, 4))
        } else {
            let at = cpl * 4 + 2;
            if at + 3 > self.tss_limit {
                return short;
            }
            let at = self.tss + at;
            (self.read(at + 2, 2) as u16, self.read(at, 2))
        };
        if selector / 4 == 0 {
            return Err((TS, 0));
        }
        let Some(d) = self.model.find(selector) else {
            return Err((TS, error(selector)));
        };
        let writable = d.s && [2, 3, 6, 7].contains(&d.kind);
        if u64::from(selector % 4) != cpl || d.dpl != cpl || !writable {
            return Err((TS, error(selector)));
        }
        if !d.p {
            return Err((SS, error(selector)));
        }
        let stack = self.stack(&d, pointer, error(selector));
        Ok((selector, pointer, stack))
    }

    fn inner_long(&self, cpl: u64, ist: u64) -> Result<Stack, Refusal> {
        let at = if ist == 0 { cpl * 8 + 4 } else { ist * 8 + 28 };
        if at + 7 > self.tss_limit {
            return Err((TS, error(self.tss_selector)));
        }
        let pointer = self.read(self.tss + at, 8);
        if !canonical(pointer) {
            return Err((SS, 0));
        }
        Ok(self.long_stack(pointer))
    }

    /// CALL far; `Ok(false)` for a task switch, which is not followed.
    pub fn call(&mut self, size: u8, selector: u16, offset: u64) -> Result<bool, Refusal> {
        let d = self.model.find(selector).filter(|_| selector / 4 != 0);
        let gate = match &d {
            Some(d) if !d.s => d.kind == 12 || d.kind == 4 && !self.model.ia32e,
            _ => false,
        };
        if gate {
            return self.call_gate(d.unwrap(), selector);
        }
        // What is no gate is checked as for JMP.
        match self.model.jump(size, selector, offset) {
            Ok(Jump::Task(tss)) => match self.model.short_task(tss) {
                Some(refused) => Err(refused),
                None => Ok(false),
            },
            Ok(Jump::To(cs, rip)) => {
                let mut stack = self.current();
                self.room(&stack, 2, size.into())?;
                let r = self.registers.clone();
                self.accessed(selector);
                self.push(&mut stack, size.into(), r.cs.into());
                self.push(&mut stack, size.into(), r.rip);
                self.take_pointer(&stack, r.rsp);
                (self.registers.cs, self.registers.rip) = (cs, rip);
                Ok(true)
            }
            // JMP and CALL may find both wrong: the order is not defined.
            Err(refused) => Err(refused),
        }
    }

    fn call_gate(&mut self, d: Fields, selector: u16) -> Result<bool, Refusal> {
        let rpl = u64::from(selector % 4);
        let ia32e = self.model.ia32e;
        let mut rip = u64::from(d.bytes[0]) + u64::from(d.bytes[1]) * 256;
        if d.kind == 12 {
            rip += u64::from(d.bytes[6]) * 0x1_0000 + u64::from(d.bytes[7]) * 0x100_0000;
        }
        if ia32e {
            match self.model.find_upper(selector) {
                Some(upper) if upper[5] % 32 == 0 => {
                    let high = u32::from_le_bytes(upper[..4].try_into().unwrap());
                    rip += u64::from(high) << 32;
                }
                _ => return Err((GP, error(selector))),
            }
        }
        if d.dpl < self.registers.cpl || rpl > d.dpl {
            return Err((GP, error(selector)));
        }
        if !d.p {
            return Err((NP, error(selector)));
        }
        let cs = u16::from_le_bytes([d.bytes[2], d.bytes[3]]);
        if cs / 4 == 0 {
            return Err((GP, 0));
        }
        let Some(code) = self.model.find(cs) else {
            return Err((GP, error(cs)));
        };
        let is_code = code.s && code.kind >= 8;
        if !is_code || code.dpl > self.registers.cpl {
            return Err((GP, error(cs)));
        }
        if ia32e && (!code.l || code.db) {
            return Err((GP, error(cs)));
        }
        if !code.p {
            return Err((NP, error(cs)));
        }
        let bytes = match (ia32e, d.kind) {
            (true, _) => 8,
            (false, 12) => 4,
            _ => 2,
        };
        let r = self.registers.clone();
        let conforming = code.kind >= 12;
        if conforming || code.dpl == r.cpl {
            let mut stack = self.current();
            // The implementation looks at the offset first here; SDM orders neither.
            if self.offset_refused(&code, rip) {
                return Err((GP, 0));
            }
            self.room(&stack, 2, bytes)?;
            self.accessed(cs);
            self.push(&mut stack, bytes, r.cs.into());
            self.push(&mut stack, bytes, r.rip);
            self.take_pointer(&stack, r.rsp);
            self.registers.cs = cs / 4 * 4 + r.cpl as u16;
            self.registers.rip = rip;
            return Ok(true);
        }
        let cpl = code.dpl;
        let (ss, whole, mut stack) = if ia32e {
            let stack = self.inner_long(cpl, 0)?;
            (cpl as u16, stack.pointer, stack)
        } else {
            self.inner(cpl)?
        };
        let parameters = if ia32e {
            0
        } else {
            usize::from(d.bytes[4] % 32)
        };
        self.room(&stack, 4 + parameters, bytes)?;
        if self.offset_refused(&code, rip) {
            return Err((GP, 0));
        }
        let mut old = self.current();
        let mut copied = Vec::new();
        for _ in 0..parameters {
            copied.push(self.pop(&mut old, bytes)?);
        }
        if !ia32e {
            self.accessed(ss);
        }
        self.accessed(cs);
        self.push(&mut stack, bytes, r.ss.into());
        self.push(&mut stack, bytes, r.rsp);
        for parameter in copied.into_iter().rev() {
            self.push(&mut stack, bytes, parameter);
        }
        self.push(&mut stack, bytes, r.cs.into());
        self.push(&mut stack, bytes, r.rip);
        self.take_pointer(&stack, whole);
        let r = &mut self.registers;
        (r.cs, r.ss, r.rip, r.cpl) = (cs / 4 * 4 + cpl as u16, ss, rip, cpl);
        Ok(true)
    }

    /// The checks of the code segment that RET and IRET return to.
    fn return_code(&self, cs: u16) -> Result<Fields, Refusal> {
        if cs / 4 == 0 {
            return Err((GP, 0));
        }
        let Some(d) = self.model.find(cs) else {
            return Err((GP, error(cs)));
        };
        let rpl = u64::from(cs % 4);
        let code = d.s && d.kind >= 8;
        let conforming = code && d.kind >= 12;
        let refused = !code
            || rpl < self.registers.cpl
            || conforming && d.dpl > rpl
            || !conforming && d.dpl != rpl
            || self.model.ia32e && d.l && d.db;
        if refused {
            return Err((GP, error(cs)));
        }
        if !d.p {
            return Err((NP, error(cs)));
        }
        Ok(d)
    }

    /// The checks of the stack segment that they return to, and the stack.
    fn return_stack(&self, to: &Fields, cs: u16, ss: u16, pointer: u64) -> Result<Stack, Refusal> {
        let long = self.model.ia32e && to.l;
        if ss / 4 == 0 {
            if !long || cs % 4 == 3 || ss % 4 != cs % 4 {
                return Err((GP, 0));
            }
            return Ok(self.long_stack(pointer));
        }
        let Some(d) = self.model.find(ss) else {
            return Err((GP, error(ss)));
        };
        let rpl = u64::from(cs % 4);
        let writable = d.s && [2, 3, 6, 7].contains(&d.kind);
        if ss % 4 != cs % 4 || !writable || d.dpl != rpl {
            return Err((GP, error(ss)));
        }
        if !d.p {
            return Err((SS, error(ss)));
        }
        Ok(if long {
            self.long_stack(pointer)
        } else {
            self.stack(&d, pointer, error(ss))
        })
    }

    /// Goes to an outer level, or in 64-bit code takes SS and RSP at the same.
    fn outward(&mut self, cs: u16, rip: u64, switch: Option<(u16, Stack)>, keep: Stack) {
        let old = self.registers.clone();
        self.accessed(cs);
        let stack = match switch {
            Some((ss, stack)) => {
                if ss / 4 != 0 {
                    self.accessed(ss);
                }
                self.registers.ss = ss;
                stack
            }
            None => keep,
        };
        self.take_pointer(&stack, old.rsp);
        let cpl = u64::from(cs % 4);
        let r = &mut self.registers;
        (r.cs, r.rip, r.cpl) = (cs, rip, cpl);
        if cpl > old.cpl {
            r.data = [0; 4];
        }
    }

    /// RET far.
    pub fn ret(&mut self, size: u8, release: u64) -> Result<(), Refusal> {
        let bytes = u64::from(size);
        let mut stack = self.current();
        let rip = self.pop(&mut stack, bytes)?;
        let cs = self.pop(&mut stack, bytes)? as u16;
        let d = self.return_code(cs)?;
        stack.pointer = World::down(&stack, release.wrapping_neg());
        let mut switch = None;
        if u64::from(cs % 4) > self.registers.cpl {
            let pointer = self.pop(&mut stack, bytes)?;
            let ss = self.pop(&mut stack, bytes)? as u16;
            let mut outer = self.return_stack(&d, cs, ss, pointer)?;
            outer.pointer = World::down(&outer, release.wrapping_neg());
            switch = Some((ss, outer));
        }
        if self.offset_refused(&d, rip) {
            return Err((GP, 0));
        }
        self.outward(cs, rip, switch, stack);
        Ok(())
    }

    /// IRET, with NT clear and no return to virtual-8086 mode.
    pub fn iret(&mut self, size: u8) -> Result<(), Refusal> {
        let bytes = u64::from(size);
        let mut stack = self.current();
        let rip = self.pop(&mut stack, bytes)?;
        let cs = self.pop(&mut stack, bytes)? as u16;
        let image = self.pop(&mut stack, bytes)?;
        let d = self.return_code(cs)?;
        let old = self.registers.clone();
        let mut switch = None;
        if u64::from(cs % 4) > old.cpl || self.model.bits64 {
            let pointer = self.pop(&mut stack, bytes)?;
            let ss = self.pop(&mut stack, bytes)? as u16;
            switch = Some((ss, self.return_stack(&d, cs, ss, pointer)?));
        }
        if self.offset_refused(&d, rip) {
            return Err((GP, 0));
        }
        self.outward(cs, rip, switch, stack);
        // CF, PF, AF, ZF, SF, TF, DF, OF, NT.
        let mut bits = vec![0, 2, 4, 6, 7, 8, 10, 11, 14];
        if size > 2 {
            // RF, AC, ID.
            bits.extend([16, 18, 21]);
        }
        if old.cpl <= old.rflags >> 12 & 3 {
            bits.push(9);
        }
        if old.cpl == 0 {
            bits.extend([12, 13]);
            if size > 2 {
                // VIF, VIP.
                bits.extend([19, 20]);
            }
        }
        let mut flags = old.rflags;
        for bit in bits {
            flags = flags & !(1 << bit) | image & 1 << bit;
        }
        if size == 2 {
            // An instruction that completes clears RF.
            flags &= !(1 << 16);
        }
        self.registers.rflags = flags;
        Ok(())
    }

    /// INT n; `Ok(false)` for a task gate, which is not followed.
    pub fn int(&mut self, vector: u8) -> Result<bool, Refusal> {
        let ia32e = self.model.ia32e;
        let refused = u32::from(vector) * 8 + 2;
        let size = if ia32e { 16 } else { 8 };
        let at = u64::from(vector) * size;
        if at + size - 1 > self.idt_limit {
            return Err((GP, refused));
        }
        let at = self.idt + at;
        let access = self.read(at + 5, 1);
        let (kind, dpl) = (access % 32, access / 32 % 4);
        let known: &[u64] = if ia32e { &[14, 15] } else { &[5, 6, 7, 14, 15] };
        if !known.contains(&kind) || dpl < self.registers.cpl {
            return Err((GP, refused));
        }
        if access < 128 {
            return Err((NP, refused));
        }
        let cs = self.read(at + 2, 2) as u16;
        if kind == 5 {
            return Ok(false);
        }
        let mut rip = self.read(at, 2);
        if kind >= 14 {
            rip += self.read(at + 6, 2) << 16;
        }
        if ia32e {
            rip += self.read(at + 8, 4) << 32;
        }
        if cs / 4 == 0 {
            return Err((GP, 0));
        }
        let Some(code) = self.model.find(cs) else {
            return Err((GP, error(cs)));
        };
        let is_code = code.s && code.kind >= 8;
        let r = self.registers.clone();
        if !is_code || code.dpl > r.cpl || ia32e && (!code.l || code.db) {
            return Err((GP, error(cs)));
        }
        if !code.p {
            return Err((NP, error(cs)));
        }
        let inner = code.kind < 12 && code.dpl < r.cpl;
        let cpl = if inner { code.dpl } else { r.cpl };
        let bytes = match (ia32e, kind) {
            (true, _) => 8,
            (_, 14 | 15) => 4,
            _ => 2,
        };
        let ist = if ia32e { self.read(at + 4, 1) % 8 } else { 0 };
        let mut ss = r.ss;
        let mut whole = r.rsp;
        let mut stack;
        if ia32e {
            stack = if inner || ist != 0 {
                self.inner_long(cpl, ist)?
            } else {
                self.long_stack(r.rsp)
            };
            stack.pointer -= stack.pointer % 16;
            if inner {
                ss = cpl as u16;
            }
        } else if inner {
            (ss, whole, stack) = self.inner(cpl)?;
        } else {
            stack = self.current();
        }
        let outer_frame = inner || ia32e;
        self.room(&stack, if outer_frame { 5 } else { 3 }, bytes)?;
        if self.offset_refused(&code, rip) {
            return Err((GP, 0));
        }
        if inner && !ia32e {
            self.accessed(ss);
        }
        self.accessed(cs);
        if outer_frame {
            self.push(&mut stack, bytes, r.ss.into());
            self.push(&mut stack, bytes, r.rsp);
        }
        self.push(&mut stack, bytes, r.rflags & !(1 << 16));
        self.push(&mut stack, bytes, r.cs.into());
        self.push(&mut stack, bytes, r.rip);
        self.take_pointer(&stack, whole);
        let r = &mut self.registers;
        (r.cs, r.ss, r.rip, r.cpl) = (cs / 4 * 4 + cpl as u16, ss, rip, cpl);
        // TF, NT, RF and VM; IF for interrupt gates.
        r.rflags &= !(1 << 8 | 1 << 14 | 1 << 16 | 1 << 17);
        if kind % 2 == 0 {
            r.rflags &= !(1 << 9);
        }
        Ok(true)
    }
}
