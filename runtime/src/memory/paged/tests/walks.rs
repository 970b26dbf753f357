//! Random paging structures against the model, and what the TLB may still know of old ones.

use super::super::{Access, Paged, PagingContext, PhysMemory, Place, Rights};
use super::model::{Controls, Kind, Outcome, Ram, translate};
use crate::system::{Fault, cr0, cr4, efer};
use std::sync::Arc;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Pages of RAM at 0.
const LOW: u64 = 24;
/// Pages of RAM at 4 GiB.
const HIGH: u64 = 4;
const HIGH_START: u64 = 1 << 32;

/// The physical address of a page: mostly RAM.
fn any_page(r: &mut Random) -> u64 {
    match r.below(20) {
        0 => HIGH_START + r.below(HIGH + 2) * 4096,
        1 => r.below(1 << 28) << 12,
        _ => r.below(LOW) * 4096,
    }
}

/// An entry with mostly sensible bits.
fn entry(r: &mut Random, wide: bool) -> u64 {
    let mut e = any_page(r) & if wide { u64::MAX } else { 0xffff_f000 };
    for (bit, percent) in [
        (0, 93),
        (1, 75),
        (2, 75),
        (3, 10),
        (4, 10),
        (5, 50),
        (6, 50),
        (8, 40),
    ] {
        e |= u64::from(r.chance(percent)) << bit;
    }
    e |= r.below(8) << 9;
    if r.chance(15) {
        // A large page that lies where RAM is, or thereabouts.
        e = e & 0xfff | 1 << 7 | if r.chance(50) { 1 << 12 } else { 0 };
        if wide {
            e |= [0, 0, 0, HIGH_START, 1 << 30, 1 << 21][r.below(6) as usize];
        } else {
            e |= [0, 0, 0, 1 << 13, 1 << 20, 1 << 22][r.below(6) as usize];
        }
    }
    if wide {
        e |= u64::from(r.chance(12)) << 63;
        if r.chance(10) {
            e |= r.below(1 << 11) << 52;
        }
        if r.chance(3) {
            e |= 1 << (40 + r.below(12));
        }
    }
    if r.chance(2) {
        e |= 1 << (12 + r.below(10));
    }
    e
}

fn put_entry(r: &mut Random, ram: &mut Ram, wide: bool, at: u64) {
    let e = entry(r, wide);
    if wide {
        ram.write(at & !7, 8, e);
    } else {
        ram.write(at & !3, 4, e);
    }
}

fn random_ram(r: &mut Random, wide: bool) -> Ram {
    let mut ram = Ram::default();
    for page in (0..LOW).chain((0..HIGH).map(|n| n + (HIGH_START >> 12))) {
        ram.pages.insert(page, vec![0; 4096]);
        for at in (0..4096).step_by(if wide { 8 } else { 4 }) {
            put_entry(r, &mut ram, wide, page * 4096 + at);
        }
    }
    ram
}

fn controls(r: &mut Random) -> Controls {
    let (pae, long) =
        [(false, false), (true, false), (true, true), (true, true)][r.below(4) as usize];
    let mut pdpte = [0; 4];
    for e in &mut pdpte {
        *e = any_page(r) & ((1 << 40) - 1) | u64::from(r.chance(90));
    }
    Controls {
        paging: r.chance(97),
        wp: r.chance(60),
        pse: r.chance(70),
        pae,
        pge: r.chance(60),
        smep: r.chance(40),
        smap: r.chance(40),
        nxe: r.chance(70),
        long,
        a20: r.chance(90),
        width: if r.chance(50) {
            40
        } else {
            36 + r.below(4) as u32
        },
        gib: r.chance(80),
        cr3: r.below(LOW) * 4096,
        pdpte,
        user: false,
        ac: false,
    }
}

fn bits(pairs: &[(bool, u64)]) -> u64 {
    pairs.iter().filter(|p| p.0).map(|p| p.1).sum()
}

fn context(c: &Controls, cpl: u8, ac: bool) -> PagingContext {
    PagingContext {
        cr0: bits(&[(true, cr0::PE), (c.paging, cr0::PG), (c.wp, cr0::WP)]),
        cr3: c.cr3,
        cr4: bits(&[
            (c.pse, cr4::PSE),
            (c.pae, cr4::PAE),
            (c.pge, cr4::PGE),
            (c.smep, cr4::SMEP),
            (c.smap, cr4::SMAP),
        ]),
        pdpte: c.pdpte,
        efer: bits(&[(c.nxe, efer::NXE), (c.long, efer::LMA | efer::LME)]),
        cpl,
        ac,
        a20: c.a20,
        missing_bits: (40 - c.width) as u8,
        no_gib_pages: !c.gib,
    }
}

fn linear(r: &mut Random, c: &Controls) -> u64 {
    let any = r.next();
    if !c.long {
        return any & 0xffff_ffff;
    }
    if r.chance(2) {
        return any;
    }
    (any << 16) as i64 as u64 >> 16 | if bit47(any) { 0xffff << 48 } else { 0 }
}

fn bit47(v: u64) -> bool {
    v >> 47 & 1 != 0
}

/// Memory as `Paged` wants it, with that content.
fn machine(ram: &Ram) -> Paged {
    let mut phys = PhysMemory::new();
    phys.add_ram(0, LOW * 4096).unwrap();
    phys.add_ram(HIGH_START, HIGH * 4096).unwrap();
    copy(ram, &phys);
    Paged::new(Arc::new(phys))
}

fn copy(ram: &Ram, phys: &PhysMemory) {
    for (page, bytes) in &ram.pages {
        phys.write_bytes(page * 4096, bytes);
    }
}

fn content(ram: &Ram, phys: &PhysMemory) -> Ram {
    let mut now = ram.clone();
    for (page, bytes) in &mut now.pages {
        phys.read_bytes(page * 4096, bytes);
    }
    now
}

/// An access to try.
#[derive(Clone, Copy, Debug)]
struct Try {
    linear: u64,
    kind: Kind,
    cpl: u8,
    ac: bool,
    rights: Rights,
}

impl Try {
    fn random(r: &mut Random, linear: u64) -> Try {
        Try {
            linear,
            kind: [Kind::Read, Kind::Write, Kind::Fetch][r.below(3) as usize],
            cpl: [0, 0, 1, 3, 3][r.below(5) as usize],
            ac: r.chance(50),
            rights: match r.below(6) {
                0 => Rights::Supervisor,
                1 => Rights::User,
                _ => Rights::Current,
            },
        }
    }

    /// What the model needs to know of it.
    fn controls(&self, c: &Controls) -> Controls {
        let current = self.rights == Rights::Current;
        Controls {
            user: match self.rights {
                Rights::Current => self.cpl == 3,
                Rights::Supervisor => false,
                Rights::User => true,
            },
            ac: current && self.ac,
            ..*c
        }
    }

    fn carry_out(&self, m: &Paged, c: &Controls) -> Result<u64, Fault> {
        m.set_context(context(c, self.cpl, self.ac));
        let access = match self.kind {
            Kind::Read => Access::Read,
            Kind::Write => Access::Write,
            Kind::Fetch => Access::Fetch,
        };
        m.translate(self.linear, access, self.rights)
    }

    fn expect(&self, c: &Controls, outcome: Outcome) -> Result<u64, Fault> {
        let linear = if c.long {
            self.linear
        } else {
            self.linear & 0xffff_ffff
        };
        match outcome {
            Outcome::Physical { addr, .. } => Ok(addr),
            Outcome::GeneralProtection => Err(Fault::gp(0)),
            Outcome::PageFault(code) => Err(Fault::pf(linear, code)),
        }
    }
}

/// That accesses with the current rights get to the byte that `translate` says.
fn reads_and_writes_go_there(m: &Paged, t: &Try, found: Result<u64, Fault>) {
    if t.rights != Rights::Current || t.kind == Kind::Fetch {
        return;
    }
    let write = t.kind == Kind::Write;
    match found {
        Err(fault) => {
            assert_eq!(m.fault_of(t.linear, write, false), Some(fault));
            assert!(m.check(t.linear, 1, write).is_err());
        }
        Ok(addr) => {
            assert_eq!(m.fault_of(t.linear, write, false), None);
            let Place::Ram(host) = m.phys().place(addr) else {
                return;
            };
            let host = host.wrapping_add((addr % 4096) as usize);
            assert_eq!(m.span(t.linear, 1, write), Ok(Some(host)));
            let hit = m.hit(t.linear, 1, write);
            // An address that is cut misses.
            assert!(hit == Some(host) || hit.is_none() && t.linear >> 32 != 0);
        }
    }
}

#[test]
fn random_structures_give_what_the_model_gives() {
    let mut r = Random(0x1234_5678_9abc_def1);
    let mut seen = std::collections::BTreeMap::<String, u64>::new();
    for _ in 0..150 {
        let c = controls(&mut r);
        let mut ram = random_ram(&mut r, c.pae);
        let m = machine(&ram);
        for _ in 0..300 {
            let at = linear(&mut r, &c);
            let t = Try::random(&mut r, at);
            let outcome = translate(&mut ram, t.controls(&c), t.linear, t.kind);
            m.flush(true);
            let found = t.carry_out(&m, &c);
            assert_eq!(found, t.expect(&c, outcome), "{t:x?} {c:x?}");
            reads_and_writes_go_there(&m, &t, found);
            let kind = match outcome {
                Outcome::Physical { size, .. } => format!("page {size:#x}"),
                other => format!("{other:?}"),
            };
            *seen.entry(kind).or_default() += 1;
        }
        // Accessed and dirty bits.
        assert!(
            content(&ram, m.phys()).pages == ram.pages,
            "entries differ: {c:x?}"
        );
    }
    // Every page size, every fault code: P/W/U/RSVD/ID in all combinations that there are.
    let sizes = ["0x1000", "0x200000", "0x400000", "0x40000000"];
    for size in sizes {
        assert!(seen.contains_key(&format!("page {size}")), "{seen:?}");
    }
    assert!(seen.contains_key("GeneralProtection"), "{seen:?}");
    for base in [0, 1, 9] {
        for more in [0, 2, 4, 6, 16, 20] {
            let key = format!("PageFault({})", base + more);
            // A supervisor's read of a supervisor's page cannot be refused, but with SMAP it is.
            assert!(seen.contains_key(&key), "{key} {seen:?}");
        }
    }
}

/// An outcome that the TLB may know.
#[derive(Clone, Copy, Debug)]
struct Known {
    addr: u64,
    size: u64,
    global: bool,
}

#[test]
fn stale_entries_are_gone_when_they_must_be() {
    let mut r = Random(0x0dd_ba11_5eed);
    let (mut stale, mut checked) = (0, 0);
    for _ in 0..80 {
        let mut c = controls(&mut r);
        c.paging = true;
        let mut ram = random_ram(&mut r, c.pae);
        let m = machine(&ram);
        // A few addresses, some next to each other.
        let mut places = Vec::new();
        for _ in 0..4 {
            let at = linear(&mut r, &c) & !(1 << 13);
            places.extend([at, at ^ 1 << 13]);
        }
        let tries: Vec<Try> = (0..24)
            .map(|n| Try::random(&mut r, places[n % places.len()]))
            .collect();
        let mut known: Vec<Vec<Known>> = vec![Vec::new(); tries.len()];
        for _ in 0..200 {
            // Whatever the tables say now may get into the TLB.
            for (t, known) in tries.iter().zip(&mut known) {
                let outcome = translate(&mut ram.clone(), t.controls(&c), t.linear, t.kind);
                if let Outcome::Physical { addr, size, global } = outcome {
                    known.push(Known { addr, size, global });
                }
            }
            let n = r.below(tries.len() as u64) as usize;
            let t = tries[n];
            let now = translate(&mut ram.clone(), t.controls(&c), t.linear, t.kind);
            let found = t.carry_out(&m, &c);
            checked += 1;
            match found {
                Ok(addr) => {
                    assert!(known[n].iter().any(|k| k.addr == addr), "{t:x?} {c:x?}");
                    stale += u64::from(Ok(addr) != t.expect(&c, now));
                }
                Err(_) => assert_eq!(found, t.expect(&c, now), "{t:x?} {c:x?}"),
            }
            reads_and_writes_go_there(&m, &t, found);
            ram = content(&ram, m.phys());
            match r.below(20) {
                0 => {
                    m.flush(true);
                    known.iter_mut().for_each(Vec::clear);
                }
                1 => {
                    m.flush(false);
                    known.iter_mut().for_each(|k| k.retain(|k| k.global));
                }
                2 => {
                    // MOV to CR3, of another value.
                    c.cr3 = (c.cr3 % (LOW * 4096)) ^ 4096;
                    c.pdpte.rotate_left(1);
                    let cx = context(&c, 0, false);
                    m.set_context(cx);
                    known.iter_mut().for_each(|k| k.retain(|k| k.global));
                }
                3 => {
                    c.wp = !c.wp;
                    m.set_context(context(&c, 0, false));
                    known.iter_mut().for_each(Vec::clear);
                }
                4..8 => {
                    let at = places[r.below(places.len() as u64) as usize];
                    m.flush_page(at);
                    for (t, known) in tries.iter().zip(&mut known) {
                        known.retain(|k| t.linear / k.size != at / k.size);
                    }
                }
                _ => {
                    // The guest changes an entry of a walk.
                    let t = tries[r.below(tries.len() as u64) as usize];
                    let mut walked = ram.clone();
                    walked.used.clear();
                    translate(&mut walked, t.controls(&c), t.linear, t.kind);
                    let used = walked.used;
                    if let Some(&at) = used.get(r.below(4) as usize).or(used.last()) {
                        put_entry(&mut r, &mut ram, c.pae, at);
                    }
                    copy(&ram, m.phys());
                }
            }
        }
    }
    assert!(stale * 50 > checked, "only {stale} of {checked} stale");
}
