//! `verify`: runs a Linux program in lock step, the interpreter on IR that no pass has touched
//! against compiled code, and shows the first block on which they differ.

use super::args::VerifyArgs;
use super::messages::say;
use super::{Failure, disasm, exit, logs, report, user};
use metaphrase_frontend::{SensitivePolicy, lift_region};
use metaphrase_runtime::Vcpu;
use metaphrase_runtime::lockstep::{self, Lockstep, LockstepStop, Mismatch, Outcome};

/// Blocks between two looks at pending signals.
const SLICE: u64 = 256;

/// Runs the command.
pub fn run(mut args: VerifyArgs) -> Result<i32, Failure> {
    // Both engines must see the same time.
    args.user.engine.tsc = super::args::TscArg::Instructions;
    let options = lockstep::options(args.user.engine.options()?, args.tier);
    let (stats, json) = (args.user.engine.stats, args.user.engine.json);
    let (mut process, mut vcpu, _log) = user::prepare(args.user, options)?;
    process.start(&mut vcpu);
    let mut lockstep = Lockstep::new(&vcpu);
    loop {
        let memory = vcpu.env.memory.base();
        let stop = match lockstep.run(&mut vcpu, SLICE).map_err(Failure::internal)? {
            LockstepStop::Stop(stop) => stop,
            LockstepStop::Mismatch(mismatch) => {
                show(&vcpu, &mismatch);
                return Ok(exit::DIFFERENT);
            }
        };
        if let Some(end) = process.handle(&mut vcpu, stop).map_err(Failure::internal)? {
            say!(
                "metaphrase: {} blocks agree in both engines",
                lockstep.blocks
            );
            if stats {
                report::print(&vcpu.report(), json);
            }
            return Ok(user::finish(end));
        }
        if vcpu.env.memory.base() != memory {
            // Another program took this one's place, with a memory of its own.
            vcpu.env.memory.watch_writes(true);
        }
    }
}

/// Shows a difference with everything that helps to find its cause.
fn show(vcpu: &Vcpu, m: &Mismatch) {
    say!(
        "metaphrase: the engines differ in the block at {:#x}, after {} blocks that agree\n",
        m.pc,
        m.blocks
    );
    say!("state before:\n{}\n", m.before);
    let leave = |name: &str, o: &Outcome| {
        say!(
            "{name} left by {:?} (details {:#x}):\n{}\n",
            o.reason,
            o.info,
            o.state
        );
    };
    leave("the interpreter", &m.interpreted);
    leave("compiled code", &m.compiled);
    say!(
        "{:<10} {:>34} {:>34}",
        "differing",
        "interpreter",
        "compiled"
    );
    for (name, a, b) in m.interpreted.state.differences(&m.compiled.state) {
        say!("{name:<10} {a:>34} {b:>34}");
    }
    for (addr, a, b) in &m.memory {
        say!("[{addr:#x}] {a:>#34x} {b:>#34x}");
    }
    let options = vcpu.options();
    let (memory, policy) = (&vcpu.env.memory, SensitivePolicy::default());
    if let Ok(mut lifted) = lift_region(m.pc, vcpu.mode, memory, options.block_limits, &policy) {
        say!("\nguest code:\n{}", logs::guest_listing(memory, &lifted));
        say!("IR before the passes, as interpreted:\n{}", lifted.region);
        match metaphrase_ir::passes::run(&mut lifted.region, &options.passes) {
            Ok(()) => say!("IR after the passes, as compiled:\n{}", lifted.region),
            Err(error) => say!("the passes leave invalid IR: {error}"),
        }
    }
    say!("host code:\n{}", disasm::host(m.host.0, &m.host.1));
}
