//! QEMU's spelling of options: one dash before a long name.

use super::args::Cli;
use clap::{Arg, Command, CommandFactory};
use std::ffi::OsString;

/// Rewrites QEMU's single-dash words to the long names that the parser knows; stops at the guest
/// program's own arguments, which begin after the first word that is no option of ours.
pub fn with_long_names(args: Vec<OsString>) -> Vec<OsString> {
    let mut cli = Cli::command();
    cli.build();
    let mut words = args.into_iter();
    let mut out: Vec<OsString> = words.by_ref().take(2).collect();
    let name = out.get(1).map(|word| word.to_string_lossy().into_owned());
    let Some(command) = name.and_then(|name| cli.find_subcommand(name)) else {
        out.extend(words);
        return out;
    };
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let option = find(command, &text);
        if option.is_none() && !text.starts_with('-') {
            out.push(word);
            break;
        }
        match option {
            // The long name that was written, which may be another than the option's first.
            Some(_) if is_long_with_one_dash(&text) => out.push(format!("-{text}").into()),
            _ => out.push(word),
        }
        if option.is_some_and(takes_next_word) {
            out.extend(words.next());
        }
    }
    out.extend(words);
    out
}

/// `-name`, as opposed to `--name` and `-n`.
fn is_long_with_one_dash(text: &str) -> bool {
    text.len() > 2 && !text.starts_with("--")
}

/// The option that a word names, with one dash or two.
fn find<'a>(command: &'a Command, text: &str) -> Option<&'a Arg> {
    let name = text.strip_prefix('-')?;
    let (name, is_long) = match name.strip_prefix('-') {
        Some(name) => (name, true),
        None => (name, name.len() > 1),
    };
    command.get_arguments().find(|arg| {
        if !is_long {
            return arg.get_short().is_some_and(|short| name.starts_with(short));
        }
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long() == Some(name) || aliases.contains(&name)
    })
}

/// Whether the option's value is the word after it.
fn takes_next_word(arg: &Arg) -> bool {
    let least = arg.get_num_args().map_or(0, |range| range.min_values());
    arg.get_action().takes_values() && !arg.is_require_equals_set() && least > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str) {
        let words = before.split(' ').map(OsString::from).collect();
        let got = with_long_names(words);
        let got: Vec<_> = got.iter().map(|w| w.to_string_lossy()).collect();
        assert_eq!(got.join(" "), after);
    }

    #[test]
    fn one_dash_becomes_two_where_a_long_name_follows() {
        check("m system -kernel k -m 64", "m system --kernel k -m 64");
        check(
            "m system -append -cpu -cpu max",
            "m system --append -cpu --cpu max",
        );
        check(
            "m system -no-reboot -icount 3",
            "m system --no-reboot --icount 3",
        );
        check(
            "m user -one-insn-per-tb -strace a",
            "m user --one-insn-per-tb --strace a",
        );
    }

    #[test]
    fn what_is_not_ours_stays() {
        check(
            "m user -cpu max prog -cpu -strace",
            "m user --cpu max prog -cpu -strace",
        );
        check("m user -L dir prog -kernel", "m user -L dir prog -kernel");
        check("m system -nosuch -m64", "m system -nosuch -m64");
        check("m nosuch -cpu", "m nosuch -cpu");
        check("m", "m");
    }
}
