//! Compilation, on a background thread or at once.
//!
//! Jobs carry finished IR; results carry host code that still has to be placed. Only the virtual
//! CPU's own thread touches the block cache and the arena, between two entries into compiled code,
//! so publishing needs no lock and a guest never sees half a translation.

use crate::cache::TransId;
use crate::options::Options;
use crate::state::CpuState;
use crate::translate::{TranslateError, to_code};
use crossbeam_channel::{Receiver, Sender, unbounded};
use metaphrase_backend::{BackendError, CompiledRegion, Compiler};
use metaphrase_ir::Region;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// A region to compile.
#[derive(Debug)]
pub struct Job {
    /// For which translation.
    pub id: TransId,
    /// Its version.
    pub version: u32,
    /// 1 for a block, 2 for a region.
    pub tier: u8,
    /// The first of its link slots.
    pub slot_base: u32,
    /// How many link slots were reserved.
    pub slots: u32,
    /// The optimised IR.
    pub region: Region,
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

/// The compilers of both tiers.
struct Compilers {
    tier1: Compiler,
    tier2: Compiler,
}

impl Compilers {
    fn new(options: &Options) -> Result<Compilers, BackendError> {
        let helpers = crate::helpers::table();
        let make = |o: &metaphrase_backend::Options| {
            let mut o = o.clone();
            o.chain &= options.chain;
            o.jump_cache &= options.jump_cache;
            o.keep_clif |= options.keep_clif;
            Compiler::new(CpuState::layout(), helpers, o)
        };
        Ok(Compilers {
            tier1: make(&options.tier1)?,
            tier2: make(&options.tier2)?,
        })
    }

    fn compile(&mut self, job: Job) -> Done {
        let start = Instant::now();
        let compiler = if job.tier == 2 {
            &mut self.tier2
        } else {
            &mut self.tier1
        };
        let result = to_code(compiler, &job.region, job.slot_base);
        Done {
            job,
            result,
            nanos: start.elapsed().as_nanos() as u64,
        }
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
    /// Makes the compilers; no thread is started before the first background job.
    pub fn new(options: &Options) -> Result<CompileService, BackendError> {
        let inline = Compilers::new(options)?;
        Ok(CompileService {
            options: options.clone(),
            inline,
            worker: None,
            pending: 0,
        })
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
        let Ok(mut compilers) = Compilers::new(&options) else {
            return;
        };
        for job in incoming {
            let done = if cancelled.load(Ordering::Relaxed) {
                Done {
                    job,
                    result: Err(TranslateError::Cancelled),
                    nanos: 0,
                }
            } else {
                compilers.compile(job)
            };
            if outgoing.send(done).is_err() {
                return;
            }
        }
    };
    // Signals are for the thread that runs the guest.
    let thread = crate::user::with_signals_blocked(|| {
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
