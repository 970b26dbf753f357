//! Compilation, on a background thread or at once.
//!
//! Jobs carry finished IR; results carry host code that still has to be placed. Only the virtual
//! CPU's own thread touches the block cache and the arena, between two entries into compiled code,
//! so publishing needs no lock and a guest never sees half a translation.

use crate::cache::{Key, TransId};
use crate::options::{Options, X87Core};
use crate::state::CpuState;
use crate::translate::{TranslateError, optimise, to_code};
use crossbeam_channel::{Receiver, Sender, unbounded};
use metaphrase_backend::{BackendError, CompiledRegion, Compiler};
use metaphrase_ir::Region;
use metaphrase_ir::passes::PassSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// A region to compile.
#[derive(Debug)]
pub struct Job {
    /// For which translation.
    pub id: TransId,
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: u32,
    /// 1 for a block, 2 for a region.
    pub tier: u8,
    /// The first of its link slots.
    pub slot_base: u32,
    /// How many link slots were reserved.
    pub slots: u32,
    /// The IR.
    pub region: Region,
    /// The passes that it still has to go through.
    pub passes: Option<PassSet>,
    /// The pages it was made from.
    pub pages: Vec<u64>,
}

/// A finished job.
#[derive(Debug)]
pub struct Done {
    /// The job; its region says what the code means.
    pub job: Job,
    /// The code, or why there is none.
    pub result: Result<CompiledRegion, TranslateError>,
    /// How long it took.
    pub nanos: u64,
}

impl Done {
    /// A job that nobody began.
    pub fn cancelled(job: Job) -> Done {
        Done {
            job,
            result: Err(TranslateError::Cancelled),
            nanos: 0,
        }
    }
}

/// The compilers of tiers 1 and 2, each made when it is first needed.
struct Compilers {
    options: Options,
    tiers: [Option<Compiler>; 2],
}

impl Compilers {
    fn new(options: &Options) -> Compilers {
        Compilers {
            options: options.clone(),
            tiers: [None, None],
        }
    }

    fn compiler(&mut self, tier: u8) -> Result<&mut Compiler, BackendError> {
        let all = &self.options;
        let (slot, options) = match tier {
            2 => (&mut self.tiers[1], &all.tier2),
            _ => (&mut self.tiers[0], &all.tier1),
        };
        if slot.is_none() {
            let mut o = options.clone();
            o.chain &= all.chain;
            o.jump_cache &= all.jump_cache;
            o.keep_clif |= all.keep_clif;
            o.x87 = cfg!(target_arch = "x86_64") && all.x87 == X87Core::Host && all.x87_inline;
            *slot = Some(Compiler::new(
                CpuState::layout(),
                crate::helpers::table(),
                o,
            )?);
        }
        Ok(slot.as_mut().expect("it was just made"))
    }

    fn compile(&mut self, mut job: Job) -> Done {
        let start = Instant::now();
        let result = self.optimise_and_compile(&mut job);
        Done {
            job,
            result,
            nanos: start.elapsed().as_nanos() as u64,
        }
    }

    fn optimise_and_compile(&mut self, job: &mut Job) -> Result<CompiledRegion, TranslateError> {
        if let Some(passes) = job.passes.take() {
            optimise(&mut job.region, &passes)?;
        }
        to_code(self.compiler(job.tier)?, &job.region, job.slot_base)
    }
}

/// The background thread with its two queues.
struct Worker {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    thread: JoinHandle<()>,
    cancel: Arc<AtomicBool>,
}

/// Compiles regions, now or later.
pub struct CompileService {
    options: Options,
    inline: Compilers,
    worker: Option<Worker>,
    pending: usize,
}

impl std::fmt::Debug for CompileService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompileService")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl CompileService {
    /// Nothing is made and no thread started before the first job.
    pub fn new(options: &Options) -> CompileService {
        CompileService {
            options: options.clone(),
            inline: Compilers::new(options),
            worker: None,
            pending: 0,
        }
    }

    /// Compiles while the caller waits.
    pub fn compile(&mut self, job: Job) -> Done {
        self.inline.compile(job)
    }

    /// Hands a job to the background thread; gives it back if there can be none.
    pub fn submit(&mut self, job: Job) -> Result<(), Box<Job>> {
        if self.worker.is_none() {
            self.worker = start_worker(&self.options);
        }
        let Some(worker) = &self.worker else {
            return Err(Box::new(job));
        };
        match worker.jobs.send(job) {
            Ok(()) => {
                self.pending += 1;
                Ok(())
            }
            Err(refused) => Err(Box::new(refused.into_inner())),
        }
    }

    /// Jobs under way.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The next finished job, if there is one.
    pub fn poll(&mut self) -> Option<Done> {
        if self.pending == 0 {
            return None;
        }
        let done = self.worker.as_ref()?.done.try_recv().ok()?;
        self.pending -= 1;
        Some(done)
    }

    /// Ends the background thread, so that the process may fork. Every job comes back; those that
    /// had not begun as [`TranslateError::Cancelled`].
    pub fn stop(&mut self) -> Vec<Done> {
        let Some(Worker {
            jobs,
            done,
            thread,
            cancel,
        }) = self.worker.take()
        else {
            return Vec::new();
        };
        cancel.store(true, Ordering::Relaxed);
        drop(jobs);
        let finished = done.iter().collect();
        // A worker that panicked has lost its jobs only; their blocks stay interpreted.
        let _ = thread.join();
        self.pending = 0;
        finished
    }
}

impl Drop for CompileService {
    fn drop(&mut self) {
        if let Some(Worker {
            jobs,
            done,
            thread,
            cancel,
        }) = self.worker.take()
        {
            cancel.store(true, Ordering::Relaxed);
            drop((jobs, done));
            let _ = thread.join();
        }
    }
}

/// Starts the thread; `None` if the host refuses one.
fn start_worker(options: &Options) -> Option<Worker> {
    let (jobs, incoming) = unbounded::<Job>();
    let (outgoing, done) = unbounded::<Done>();
    let options = options.clone();
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelled = cancel.clone();
    let body = move || {
        let mut compilers = Compilers::new(&options);
        for job in incoming {
            let done = if cancelled.load(Ordering::Relaxed) {
                Done::cancelled(job)
            } else {
                compilers.compile(job)
            };
            if outgoing.send(done).is_err() {
                return;
            }
        }
    };
    // Signals are for the thread that runs the guest.
    let thread = crate::host_mask::with_signals_blocked(|| {
        std::thread::Builder::new()
            .name("metaphrase-jit".into())
            .spawn(body)
    })
    .ok()?;
    Some(Worker {
        jobs,
        done,
        thread,
        cancel,
    })
}
