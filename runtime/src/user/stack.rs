//! The initial stack: arguments, environment and the auxiliary vector.

use super::abi::Pack;
use super::image::Image;
use super::layout::{Layout, STACK_SIZE};
use super::loader::{LoadError, phdr_size};
use super::space::Space;
use crate::memory::{GuestMemory, PAGE, page};

/// What goes on the stack besides what the image knows.
#[derive(Clone, Debug)]
pub struct StackContents<'a> {
    /// Arguments, the program's name first.
    pub args: &'a [Vec<u8>],
    /// Environment.
    pub env: &'a [Vec<u8>],
    /// `AT_EXECFN`: the path that was given to `execve`.
    pub exec_path: &'a [u8],
    /// `AT_HWCAP`: CPUID leaf 1 EDX.
    pub hwcap: u32,
    /// `AT_RANDOM`.
    pub random: [u8; 16],
}

/// Keys of the auxiliary vector.
mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
}

/// Maps the stack, fills it, and gives the initial stack pointer.
pub fn build(
    memory: &GuestMemory,
    space: &mut Space,
    image: &Image,
    contents: &StackContents<'_>,
) -> Result<u64, LoadError> {
    let Layout {
        stack_low,
        stack_top,
        ..
    } = space.layout;
    let mut prot = page::READ | page::WRITE;
    if image.exec_stack {
        prot |= page::EXEC;
    }
    memory.map_anon(stack_low, STACK_SIZE, prot)?;
    space.note(stack_low, STACK_SIZE, "[stack]", 0, false);

    let mut down = Strings {
        memory,
        at: stack_top - image.abi.word(),
        // As Linux: strings and pointers may take a quarter of the stack.
        low: stack_top - STACK_SIZE / 4,
    };
    let exec_path = down.push(contents.exec_path)?;
    let mut push_all = |list: &[Vec<u8>]| -> Result<Vec<u64>, LoadError> {
        let mut at = Vec::with_capacity(list.len());
        for s in list.iter().rev() {
            at.push(down.push(s)?);
        }
        at.reverse();
        Ok(at)
    };
    let env = push_all(contents.env)?;
    let args = push_all(contents.args)?;
    let platform = down.push(image.abi.machine().as_bytes())?;
    let random = down.push_raw(&contents.random)?;

    let ids = Ids::of_host();
    let mut table = Pack::new(image.abi);
    table.word(args.len() as u64);
    for &pointer in args.iter().chain([&0]).chain(&env).chain([&0]) {
        table.word(pointer);
    }
    for (key, value) in [
        (at::HWCAP, u64::from(contents.hwcap)),
        (at::PAGESZ, PAGE),
        (at::CLKTCK, 100),
        (at::PHDR, image.phdr),
        (at::PHENT, phdr_size(image.abi)),
        (at::PHNUM, image.phnum),
        (at::BASE, image.interpreter_base),
        (at::FLAGS, 0),
        (at::ENTRY, image.entry),
        (at::UID, ids.uid),
        (at::EUID, ids.euid),
        (at::GID, ids.gid),
        (at::EGID, ids.egid),
        (at::SECURE, 0),
        (at::RANDOM, random),
        (at::HWCAP2, 0),
        (at::EXECFN, exec_path),
        (at::PLATFORM, platform),
        (at::NULL, 0),
    ] {
        table.word(key).word(value);
    }
    let len = table.bytes.len() as u64;
    let sp = down.at.wrapping_sub(len) & !15;
    if sp < down.low || sp > down.at {
        return Err(LoadError::ArgumentsTooLong);
    }
    memory
        .write_bytes(sp, &table.bytes)
        .map_err(|_| LoadError::ArgumentsTooLong)?;
    Ok(sp)
}

/// Strings that grow downwards.
struct Strings<'a> {
    memory: &'a GuestMemory,
    at: u64,
    low: u64,
}

impl Strings<'_> {
    fn push(&mut self, s: &[u8]) -> Result<u64, LoadError> {
        self.push_raw(&[0])?;
        self.push_raw(s)
    }

    fn push_raw(&mut self, bytes: &[u8]) -> Result<u64, LoadError> {
        let at = self.at.checked_sub(bytes.len() as u64);
        self.at = at
            .filter(|&at| at >= self.low)
            .ok_or(LoadError::ArgumentsTooLong)?;
        self.memory
            .write_bytes(self.at, bytes)
            .map_err(|_| LoadError::ArgumentsTooLong)?;
        Ok(self.at)
    }
}

struct Ids {
    uid: u64,
    euid: u64,
    gid: u64,
    egid: u64,
}

impl Ids {
    fn of_host() -> Ids {
        Ids {
            uid: u64::from(rustix::process::getuid().as_raw()),
            euid: u64::from(rustix::process::geteuid().as_raw()),
            gid: u64::from(rustix::process::getgid().as_raw()),
            egid: u64::from(rustix::process::getegid().as_raw()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Window;
    use crate::user::abi::Abi;

    fn check(abi: Abi, window: Window) {
        let memory = GuestMemory::new(window).unwrap();
        let mut space = Space::new(Layout::new(abi, memory.limit()));
        let image = Image {
            abi,
            start: 0x401000,
            entry: 0x401000,
            phdr: 0x400040,
            phnum: 7,
            interpreter_base: 0,
            exec_stack: false,
        };
        let args = [b"prog".to_vec(), b"x y".to_vec()];
        let env = [b"A=1".to_vec()];
        let contents = StackContents {
            args: &args,
            env: &env,
            exec_path: b"/bin/prog",
            hwcap: 0x1234,
            random: *b"0123456789abcdef",
        };
        let sp = build(&memory, &mut space, &image, &contents).unwrap();
        assert_eq!(sp % 16, 0);
        let w = abi.word();
        let word = |n: u64| -> u64 {
            if w == 8 {
                memory.read::<u64>(sp + n * 8).unwrap()
            } else {
                u64::from(memory.read::<u32>(sp + n * 4).unwrap())
            }
        };
        let text = |at| memory.read_cstr(at, 100).unwrap().unwrap();
        assert_eq!(word(0), 2);
        assert_eq!(text(word(1)), b"prog");
        assert_eq!(text(word(2)), b"x y");
        assert_eq!(word(3), 0);
        assert_eq!(text(word(4)), b"A=1");
        assert_eq!(word(5), 0);
        let mut aux = std::collections::HashMap::new();
        let mut n = 6;
        while word(n) != 0 {
            aux.insert(word(n), word(n + 1));
            n += 2;
        }
        assert_eq!(aux[&at::PHDR], 0x400040);
        assert_eq!(aux[&at::PHENT], if w == 8 { 56 } else { 32 });
        assert_eq!(aux[&at::PAGESZ], 4096);
        assert_eq!(aux[&at::HWCAP], 0x1234);
        assert_eq!(text(aux[&at::EXECFN]), b"/bin/prog");
        let mut random = [0; 16];
        memory.read_bytes(aux[&at::RANDOM], &mut random).unwrap();
        assert_eq!(&random, b"0123456789abcdef");
    }

    #[test]
    fn both_widths_have_the_linux_layout() {
        check(Abi::X86_64, Window::Bits64);
        check(Abi::I386, Window::Bits32);
    }

    #[test]
    fn too_many_arguments_are_refused() {
        let memory = GuestMemory::new(Window::Bits32).unwrap();
        let mut space = Space::new(Layout::new(Abi::I386, memory.limit()));
        let image = Image {
            abi: Abi::I386,
            start: 0,
            entry: 0,
            phdr: 0,
            phnum: 0,
            interpreter_base: 0,
            exec_stack: false,
        };
        let args = vec![vec![b'x'; 100_000]; 30];
        let contents = StackContents {
            args: &args,
            env: &[],
            exec_path: b"x",
            hwcap: 0,
            random: [0; 16],
        };
        let result = build(&memory, &mut space, &image, &contents);
        assert!(matches!(result, Err(LoadError::ArgumentsTooLong)));
    }
}
