//! `cargo bench --bench publish`: what it costs to make finished host code executable, one
//! translation at a time: our arena against `cranelift-jit`, which finalises whole modules, never
//! frees one function, and rounds each batch up to pages. It is the reason for the arena.

use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
use cranelift_codegen::settings;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use metaphrase_backend::{Arena, Compiler};
use metaphrase_ir::{Builder, GuestInsn, Region};
use metaphrase_runtime::{CpuState, Options};
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 1000;
const RUNS: usize = 5;

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("run this with cargo bench");
        return;
    }
    let mut rows = [
        ("arena", Vec::new(), 0.0),
        ("cranelift-jit", Vec::new(), 0.0),
    ];
    for _ in 0..RUNS {
        for (n, f) in [arena as fn() -> (Duration, f64), module]
            .into_iter()
            .enumerate()
        {
            let (time, bytes) = f();
            rows[n].1.push(time);
            rows[n].2 = bytes;
        }
    }
    println!("publishing {FUNCTIONS} small functions one at a time, median of {RUNS}\n");
    println!(
        "{:<14} {:>16} {:>22}",
        "", "ns a function", "bytes taken a function"
    );
    for (name, mut times, bytes) in rows {
        times.sort();
        let each = times[RUNS / 2].as_nanos() as f64 / FUNCTIONS as f64;
        println!("{name:<14} {each:>16.0} {bytes:>22.0}");
    }
}

/// Our arena: the region is compiled once, and published again and again.
fn arena() -> (Duration, f64) {
    let mut region = Region::new(0x1000, metaphrase_ir::CodeSize::Code64);
    region.guest.push(GuestInsn {
        offset: 0,
        len: 1,
        fuel_left: 1,
    });
    Builder::new(&mut region).exit_jump(16);
    let (layout, table) = (CpuState::layout(), metaphrase_runtime::helpers::table());
    let options = Options::default().tier1;
    let mut compiler = Compiler::new(layout.clone(), table, options).expect("this host compiles");
    let compiled = compiler.compile(&region, 0).expect("it compiles");
    let mut arena = Arena::new(16 << 20, &layout).expect("an arena");
    let before = arena.used();
    let begun = Instant::now();
    for _ in 0..FUNCTIONS {
        std::hint::black_box(arena.publish(&compiled).expect("there is room"));
    }
    (
        begun.elapsed(),
        (arena.used() - before) as f64 / FUNCTIONS as f64,
    )
}

/// `cranelift-jit`: the bytes are defined and finalised one function at a time.
fn module() -> (Duration, f64) {
    let isa = cranelift_native::builder()
        .expect("this host compiles")
        .finish(settings::Flags::new(settings::builder()))
        .expect("default settings");
    let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
    let mut cx = module.make_context();
    cx.func.signature.returns.push(AbiParam::new(types::I64));
    let mut fcx = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut cx.func, &mut fcx);
    let block = b.create_block();
    b.switch_to_block(block);
    let v = b.ins().iconst(types::I64, 16);
    b.ins().return_(&[v]);
    b.seal_all_blocks();
    b.finalize(module.target_config());
    let signature = cx.func.signature.clone();
    cx.compile(module.isa(), &mut Default::default())
        .expect("it compiles");
    let code = cx
        .compiled_code()
        .expect("it was compiled")
        .code_buffer()
        .to_vec();
    let resident = resident();
    let begun = Instant::now();
    for n in 0..FUNCTIONS {
        let id = module
            .declare_function(&format!("f{n}"), Linkage::Local, &signature)
            .expect("a fresh name");
        module
            .define_function_bytes(id, 16, &code, &[])
            .expect("it can be defined");
        module.finalize_definitions().expect("it can be finalised");
        std::hint::black_box(module.get_finalized_function(id));
    }
    let time = begun.elapsed();
    let taken = resident_after(resident);
    // SAFETY: no function of the module is called any more.
    unsafe { module.free_memory() };
    (time, taken / FUNCTIONS as f64)
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4096.0
}

fn resident_after(before: f64) -> f64 {
    (resident() - before).max(0.0)
}
