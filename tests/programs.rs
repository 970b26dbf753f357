//! Real, unmodified Linux programs under every engine and both guest widths: what they write must
//! be, byte for byte, what the same program writes natively.
//!
//! `tests/install-guests` fetches the programs. Without them these tests pass with a loud note,
//! unless `METAPHRASE_REQUIRE_GUESTS` is set, as CI does.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The three engines; small thresholds make the tiered one compile even in short runs.
const ENGINES: [&[&str]; 3] = [
    &["--engine", "interp"],
    &["--engine", "jit"],
    &[
        "--engine",
        "tiered",
        "--warm-up",
        "0",
        "--tier1-threshold",
        "8",
        "--tier2-samples",
        "1",
    ],
];

/// Guest programs of one width.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    X86_64,
    I386,
}

const SYSROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/guests/i386");

/// Where a program of that width lies, or `None` (with a note, or a failure in CI).
fn find(width: Width, name: &str) -> Option<PathBuf> {
    let roots: &[&str] = match width {
        Width::X86_64 => &["/bin", "/usr/bin"],
        Width::I386 => &[
            concat!(env!("CARGO_MANIFEST_DIR"), "/target/guests/i386/bin"),
            concat!(env!("CARGO_MANIFEST_DIR"), "/target/guests/i386/usr/bin"),
        ],
    };
    let found = roots
        .iter()
        .map(|r| Path::new(r).join(name))
        .find(|p| p.exists());
    if found.is_none() {
        let note = format!("{name} is not there: run tests/install-guests");
        assert!(
            std::env::var_os("METAPHRASE_REQUIRE_GUESTS").is_none(),
            "{note}"
        );
        eprintln!("NOT TESTED: {note}");
    }
    found
}

/// A directory with the files that the programs read; removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("metaphrase-programs-{}-{n}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        // Text with repetitions, so that compressors have something to do.
        let mut text = Vec::new();
        let mut x = 0x1234_5678_9abc_def1u64;
        while text.len() < 300_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            writeln!(
                text,
                "{} line {} of {:x}",
                x % 97,
                text.len(),
                x >> (x % 60)
            )
            .unwrap();
        }
        std::fs::write(dir.join("text"), &text).unwrap();
        std::fs::write(dir.join("script.sh"), SCRIPT).unwrap();
        std::fs::write(dir.join("script.lua"), LUA).unwrap();
        std::fs::write(dir.join("sound.wav"), sound()).unwrap();
        std::fs::write(dir.join("picture.y4m"), picture()).unwrap();
        Scratch(dir)
    }

    fn run(&self, command: &mut Command, input: &[u8]) -> Output {
        let mut child = command
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The program may end before it has read everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program natively (the x86-64 one, whose output is the same) and under every engine.
fn same_as_native(width: Width, program: &str, args: &[&str], input: &[u8]) {
    same_on_model(width, "x86-64-v2", program, args, input);
}

/// The same on a CPU model.
fn same_on_model(width: Width, model: &str, program: &str, args: &[&str], input: &[u8]) {
    let (Some(reference), Some(guest)) = (find(Width::X86_64, program), find(width, program))
    else {
        return;
    };
    let scratch = Scratch::new();
    let native = scratch.run(Command::new(reference).args(args), input);
    assert!(
        !native.stdout.is_empty(),
        "{program} {args:?} writes nothing natively"
    );
    for engine in ENGINES {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metaphrase"));
        command.args(["user", "--cpu", model]).args(engine);
        if width == Width::I386 {
            command.args(["-L", SYSROOT]);
        }
        let got = scratch.run(command.arg(&guest).args(args), input);
        let errors = String::from_utf8_lossy(&got.stderr);
        assert_eq!(
            got.status, native.status,
            "{program} {args:?} {engine:?}: {errors}"
        );
        assert!(
            got.stdout == native.stdout,
            "{program} {args:?} {engine:?} writes something else than natively:\n{}\n{errors}",
            String::from_utf8_lossy(&got.stdout[..got.stdout.len().min(2000)])
        );
    }
}

/// A shell script with loops, functions, arithmetic, pipes, subshells, traps and signals.
const SCRIPT: &str = r#"
fib() { if [ "$1" -lt 2 ]; then echo "$1"; else
  a=$(fib $(($1 - 1))); b=$(fib $(($1 - 2))); echo $((a + b)); fi; }
echo "fib: $(fib 6)"
i=0; sum=0
while [ $i -lt 300 ]; do sum=$((sum * 31 + i & 0xffffff)); i=$((i + 1)); done
echo "sum: $sum"
printf '%s\n' pear apple fig | while read w; do echo "<$w>"; done
trap 'echo caught' USR1; kill -USR1 $$; echo after
(exit 7); echo "status $?"
printf '%d %x %o %5.2f %s\n' 42 255 8 3.14159 end
case "$0" in *script*) echo named;; esac
echo "${0##*/} ${#sum}"
"#;

/// A Lua script: floating point, strings, tables, closures, coroutines, errors.
const LUA: &str = r#"
local function fib(n) if n < 2 then return n end return fib(n-1) + fib(n-2) end
print("fib", fib(18))
local s = 0.0
for i = 1, 2000 do s = s + math.sin(i) * math.sqrt(i) / (i % 7 + 1) end
print(string.format("sum %.10f %g %e", s, 1/3, 1e100))
local t = {}
for i = 1, 500 do t[i] = (i * 7919) % 1009 end
table.sort(t, function(a, b) return a > b end)
print(table.concat(t, ",", 1, 20))
local co = coroutine.wrap(function() for i = 1, 5 do coroutine.yield(i * i) end end)
print(co(), co(), co())
print(pcall(function() error("oops") end))
print(("hello world"):gsub("o", "0"), #("x"):rep(1000), 7 // 2, -7 // 2, 7 % -3, 2^0.5, 10 // 0.3)
print(math.maxinteger + 1 == math.mininteger, 0x7fffffffffffffff, 1e15, 2^53, 0/0 ~= 0/0)
print(string.format("%q", 0.1), tostring(1e308 * 10), math.floor(-3.5), math.tointeger(3.0))
"#;

/// Half a second of two tones, one of them rising, and noise: 16-bit samples in a WAV file.
fn sound() -> Vec<u8> {
    const SAMPLES: u32 = 22_050;
    let mut out = Vec::new();
    out.extend(b"RIFF");
    out.extend((36 + 2 * SAMPLES).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16u32.to_le_bytes());
    for part in [1u16, 1, 44_100, 0, 22_664, 1, 2, 16] {
        out.extend(part.to_le_bytes());
    }
    out.extend(b"data");
    out.extend((2 * SAMPLES).to_le_bytes());
    for n in 0..SAMPLES {
        let t = f64::from(n);
        let noise = f64::from(n * 7919 % 201) - 100.0;
        let value = 9000.0 * (t * 0.05).sin() + 7000.0 * (t * t * 4e-6).sin() + noise;
        out.extend((value as i16).to_le_bytes());
    }
    out
}

/// Six small frames of moving gradients.
fn picture() -> Vec<u8> {
    let mut out = b"YUV4MPEG2 W96 H64 F25:1 C420\n".to_vec();
    for t in 0..6u32 {
        out.extend(b"FRAME\n");
        for y in 0..64 {
            out.extend((0..96).map(|x| (x * 3 + y * 2 + t * 5 + ((x * y) >> 4)) as u8));
        }
        for y in 0..32u32 {
            out.extend((0..48).map(|x: u32| (x + t) as u8 ^ y as u8));
        }
        for y in 0..32u32 {
            out.extend((0..48).map(|x: u32| (y * 2 + t + x / 9) as u8));
        }
    }
    out
}

/// Sums of transcendental functions, roots and quotients in double precision.
const SQL: &str = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 1500)
    select sum(sin(x) * sqrt(x)), avg(x * 1.0 / 7), printf('%.15g', sum(exp(-x / 300.0) / x)) from c;";

/// Programs that are heavy on floating point and SIMD.
macro_rules! numeric {
    ($($test:ident: $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            same_as_native(Width::X86_64, $program, &$args, b"");
        }
    )*};
}

numeric! {
    flac_sound: "flac" ["--silent", "-c", "-8", "sound.wav"];
    lame_sound: "lame" ["--quiet", "sound.wav", "-"];
    x264_picture: "x264" ["--threads", "1", "--quiet", "-o", "-", "--muxer", "raw", "picture.y4m"];
    sqlite_numbers: "sqlite3" [":memory:", SQL];
}

/// The same and others on a CPU with AVX2 and FMA: the C library's string functions, its choice of
/// mathematical functions, what the programs choose themselves, and the dynamic loader, which saves
/// the vector registers by XSAVEC.
macro_rules! with_avx {
    ($($test:ident: $width:ident $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            same_on_model(Width::$width, "x86-64-v3", $program, &$args, b"");
        }
    )*};
}

with_avx! {
    flac_sound_avx: X86_64 "flac" ["--silent", "-c", "-8", "sound.wav"];
    lame_sound_avx: X86_64 "lame" ["--quiet", "sound.wav", "-"];
    x264_picture_avx: X86_64 "x264" ["--threads", "1", "--quiet", "-o", "-", "--muxer", "raw", "picture.y4m"];
    sqlite_numbers_avx: X86_64 "sqlite3" [":memory:", SQL];
    lua_script_avx: X86_64 "lua5.4" ["script.lua"];
    sha256sum_text_avx: X86_64 "sha256sum" ["text", "script.sh"];
    sha256sum_text_avx_i386: I386 "sha256sum" ["text", "script.sh"];
    xz_text_avx: X86_64 "xz" ["-c", "-T1", "text"];
}

/// One test for each width and program.
macro_rules! programs {
    ($($test:ident $test32:ident: $program:literal $args:expr, $input:expr;)*) => {$(
        #[test]
        fn $test() {
            same_as_native(Width::X86_64, $program, &$args, $input);
        }

        #[test]
        fn $test32() {
            same_as_native(Width::I386, $program, &$args, $input);
        }
    )*};
}

programs! {
    busybox_sha256sum busybox_sha256sum_i386: "busybox" ["sha256sum", "text"], b"";
    busybox_gzip busybox_gzip_i386: "busybox" ["gzip", "-c", "text"], b"";
    busybox_sort busybox_sort_i386: "busybox" ["sort", "-n", "text"], b"";
    busybox_awk busybox_awk_i386: "busybox" ["awk", "{ s += $1 / 3; n[$1]++ } END { print s, length(n), NR }", "text"], b"";
    busybox_sh busybox_sh_i386: "busybox" ["sh", "script.sh"], b"";
    busybox_bc busybox_bc_i386: "busybox" ["dc"], b"20 k 2 v p 3 17 ^ p";
    bash_script bash_script_i386: "bash-static" ["script.sh"], b"";
    gzip_text gzip_text_i386: "gzip" ["-9", "-c"], include_bytes!("programs.rs");
    bzip2_text bzip2_text_i386: "bzip2" ["-c"], include_bytes!("programs.rs");
    xz_text xz_text_i386: "xz" ["-c", "-T1"], include_bytes!("programs.rs");
    sha256sum_text sha256sum_text_i386: "sha256sum" ["text", "script.sh"], b"";
    lua_script lua_script_i386: "lua5.4" ["script.lua"], b"";
}

/// A Lua script of numbers, which 32-bit programs compute with the x87.
const NUMBERS: &str = r#"
local s = 0.0
for i = 1, 3000 do
  s = s + math.sin(i) * math.sqrt(i) / (i % 7 + 1) + math.exp(-i / 1000) * math.log(i + 1)
  s = s + math.atan(i, 3) + i ^ 0.37 % 1.5
end
print(string.format("%.17g %g %e %a", s, 1/3, 1e100, s))
for i = 1, 20 do
  print(string.format("%.17g %.17g %a %.3f", math.tan(i), 10 ^ (i - 8), i / 7, math.fmod(i * 1e10, 3.7)))
end
"#;

/// The same digits as natively, whoever does the x87's arithmetic. Natively means the i386 program
/// here: in double precision the x86-64 one gives other digits.
#[test]
fn numbers_by_both_x87_cores() {
    let Some(guest) = find(Width::I386, "lua5.4") else {
        return;
    };
    let scratch = Scratch::new();
    std::fs::write(scratch.0.join("numbers.lua"), NUMBERS).unwrap();
    let libraries = ["lib/i386-linux-gnu", "usr/lib/i386-linux-gnu"]
        .map(|d| format!("{SYSROOT}/{d}"))
        .join(":");
    let mut native = Command::new(format!("{SYSROOT}/lib/ld-linux.so.2"));
    native.args(["--library-path", &libraries]);
    let native = scratch.run(native.arg(&guest).arg("numbers.lua"), b"");
    assert!(native.status.success(), "{native:?}");
    for core in ["host", "portable"] {
        for engine in ENGINES {
            let mut command = Command::new(env!("CARGO_BIN_EXE_metaphrase"));
            command.arg("user").args(["--x87", core, "-L", SYSROOT]);
            let got = scratch.run(command.args(engine).arg(&guest).arg("numbers.lua"), b"");
            assert!(
                got.status.success() && got.stdout == native.stdout,
                "{core} {engine:?}:\n{}\nnatively\n{}\n{}",
                String::from_utf8_lossy(&got.stdout),
                String::from_utf8_lossy(&native.stdout),
                String::from_utf8_lossy(&got.stderr)
            );
        }
    }
}
