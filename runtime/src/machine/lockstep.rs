//! Two machines with the same guest, run side by side: after every so many instructions their
//! registers must agree. In deterministic time both see the same interrupts at the same
//! instructions, so the first difference is where one engine went wrong.

use super::{Machine, MachineStop};
use crate::lockstep::Snapshot;
use crate::vcpu::VcpuError;

/// Where two machines parted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parted {
    /// Both agreed after that many instructions.
    pub agreed: u64,
    /// They differed after that many.
    pub differed: u64,
    /// RIP when they last agreed.
    pub rip: u64,
    /// What differs: name, value in the first, value in the second.
    pub differences: Vec<(String, String, String)>,
}

/// How a comparison ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compared {
    /// Both stopped for that reason, in the same state and with the same RAM.
    Agreed(MachineStop),
    /// They did not.
    Parted(Parted),
}

/// Runs both for up to `budget` instructions, comparing after each `chunk`; at the end RAM too.
///
/// # Errors
/// If an engine cannot go on.
pub fn compare(
    first: &mut Machine,
    second: &mut Machine,
    budget: u64,
    chunk: u64,
) -> Result<Compared, VcpuError> {
    let end = first.instructions().saturating_add(budget);
    loop {
        let (agreed, rip) = (first.instructions(), first.state().rip);
        let chunk = chunk.clamp(1, end.saturating_sub(agreed).max(1));
        let stops = [first.run(chunk)?, second.run(chunk)?];
        let mut differences = differences(first, second);
        if stops[0] != stops[1] {
            let [a, b] = stops.map(|s| format!("{s:?}"));
            differences.push(("stop".to_string(), a, b));
        }
        let ended = stops[0] != MachineStop::Budget || first.instructions() >= end;
        if ended && differences.is_empty() && first.digest() != second.digest() {
            let [a, b] = [first.digest(), second.digest()].map(|d| format!("{d:#x}"));
            differences.push(("digest of registers and RAM".to_string(), a, b));
        }
        if !differences.is_empty() {
            return Ok(Compared::Parted(Parted {
                agreed,
                differed: first.instructions(),
                rip,
                differences,
            }));
        }
        if ended {
            return Ok(Compared::Agreed(stops[0]));
        }
    }
}

/// The registers that differ.
fn differences(first: &Machine, second: &Machine) -> Vec<(String, String, String)> {
    let [mut a, mut b] = [first, second].map(|m| Snapshot::of(m.state()));
    // What is left of a slice is no register.
    (a.fuel, b.fuel) = (0, 0);
    let mut out = a.differences(&b);
    let [a, b] = [first, second].map(|m| m.state().sys.architectural());
    if a != b {
        let [a, b] = [a, b].map(|sys| format!("{sys:x?}"));
        out.push(("system registers".to_string(), a, b));
    }
    if first.instructions() != second.instructions() {
        let [a, b] = [first, second].map(|m| m.instructions().to_string());
        out.push(("instructions".to_string(), a, b));
    }
    out
}
