//! What each pass does, one case at a time, in the text form: a pass's switch alone is on (with
//! `dce` after it, so that the text is short).

use metaphrase_ir::{PassSet, parse, passes};

const HEAD: &str = "region pc 0x1000 code64\nguest @0 +0x0 len 2 fuel 1\n";

/// The region's text after the pass, without the head and the guest instruction numbers.
fn after(pass: &str, body: &str) -> String {
    let text = format!("{HEAD}{body}");
    let mut region = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut set = PassSet {
        verify: true,
        dce: true,
        ..PassSet::NONE
    };
    set.set(pass, true).expect("a switch of that name");
    passes::run(&mut region, &set).unwrap_or_else(|e| panic!("{e}"));
    let text = region.to_string();
    let body = text.strip_prefix(HEAD).expect("the same head");
    body.replace(" ; @0", "")
}

#[track_caller]
fn gives(pass: &str, body: &str, expected: &str) {
    let (got, expected) = (after(pass, body), unindented(expected));
    assert_eq!(unindented(&got), expected, "got:\n{got}");
}

fn unindented(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("\n")
}

/// `fold` of one i64 expression of v1 (rax) and v2 (rcx), which v9 is: what v9 becomes.
#[track_caller]
fn folds(lines: &str, expected: &str) {
    let body = format!(
        "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nv3 = trunc.i32 v1\nv4 = trunc.i8 v1\n\
         {lines}\nexit_ijump v9\n"
    );
    let got = after("fold", &body);
    let kept: Vec<&str> = got.lines().map(str::trim).collect();
    let shown = kept[1..]
        .iter()
        .filter(|l| !l.contains("getreg") && !l.contains("= trunc"));
    let shown: Vec<&str> = shown.copied().collect();
    assert_eq!(shown.join("; "), expected, "{got}");
}

#[test]
fn fold_constants() {
    folds(
        "v5 = iconst.i64 0x6\nv6 = iconst.i64 0x7\nv9 = mul.i64 v5, v6",
        "v9 = iconst.i64 0x2a; exit_ijump v9",
    );
    folds(
        "v5 = iconst.i8 0x80\nv6 = iconst.i8 0xff\nv7 = sdiv.i8 v5, v6\nv9 = zext.i64 v7",
        "v5 = iconst.i8 0x80; v6 = iconst.i8 0xff; v7 = sdiv.i8 v5, v6; v9 = zext.i64 v7; exit_ijump v9",
    );
}

#[test]
fn fold_identities() {
    folds("v5 = iconst.i64 0x0\nv9 = add.i64 v1, v5", "exit_ijump v1");
    folds("v5 = iconst.i64 0x0\nv9 = add.i64 v5, v1", "exit_ijump v1");
    folds(
        "v5 = iconst.i64 0xffffffffffffffff\nv9 = and.i64 v1, v5",
        "exit_ijump v1",
    );
    folds("v9 = xor.i64 v1, v1", "v9 = iconst.i64 0x0; exit_ijump v9");
    folds("v5 = not.i64 v1\nv9 = not.i64 v5", "exit_ijump v1");
    folds(
        "v5 = iconst.i64 0x8\nv9 = mul.i64 v1, v5",
        "v10 = iconst.i64 0x3; v9 = shl.i64 v1, v10; exit_ijump v9",
    );
}

#[test]
fn fold_address_chains() {
    folds(
        "v5 = iconst.i64 0x10\nv6 = sub.i64 v1, v5\nv7 = iconst.i64 0x18\nv9 = add.i64 v6, v7",
        "v11 = iconst.i64 0x8; v9 = add.i64 v1, v11; exit_ijump v9",
    );
}

#[test]
fn fold_widths() {
    folds(
        "v5 = iconst.i64 0xffffffff\nv9 = and.i64 v1, v5",
        "v9 = zext.i64 v10; exit_ijump v9",
    );
    folds(
        "v5 = zext.i64 v3\nv6 = trunc.i32 v5\nv9 = zext.i64 v6",
        "v9 = zext.i64 v3; exit_ijump v9",
    );
    folds(
        "v5 = ins.i8 0 v2, v4\nv6 = ext.i8 0 v5\nv9 = zext.i64 v6",
        "v9 = zext.i64 v4; exit_ijump v9",
    );
    folds(
        "v5 = ins.i8 8 v2, v4\nv6 = ext.i8 0 v5\nv9 = ins.i8 0 v2, v6",
        "exit_ijump v2",
    );
    folds(
        "v5 = zext.i64 v3\nv6 = ext.i8 40 v5\nv9 = zext.i64 v6",
        "v9 = iconst.i64 0x0; exit_ijump v9",
    );
}

#[test]
fn fold_choices() {
    folds(
        "v5 = icmp.i64 eq v1, v2\nv6 = iconst.i8 0x1\nv7 = xor.i8 v5, v6\nv9 = select.i64 v7, v1, v2",
        "v7 = icmp.i64 ne v1, v2; v9 = select.i64 v7, v1, v2; exit_ijump v9",
    );
    folds(
        "v5 = iconst.i8 0x0\nv9 = select.i64 v5, v1, v2",
        "exit_ijump v2",
    );
    gives(
        "fold",
        "block0:\nv1 = iconst.i8 0x1\nv2 = iconst.i64 0x5\nbrif v1, block1(v2), block2\n\
         block1(v3: i64):\nexit_ijump v3\nblock2:\nexit_halt\n",
        "block0:\nv2 = iconst.i64 0x5\nbr block1(v2)\nblock1(v3: i64):\nexit_ijump v3",
    );
    gives(
        "fold",
        "block0:\nv1 = iconst.i8 0x0\ntrapif 0 v1\nv2 = iconst.i8 0x1\ntrapif 6 v2\nexit_halt\n",
        "block0:\nv2 = iconst.i8 0x1\ntrapif 6 v2\nexit_halt",
    );
    gives(
        "fold",
        "block0:\nv1 = getcond z\nv2 = iconst.i8 0x0\nv3 = icmp.i8 eq v1, v2\nexit_jumpif +0x8 -0x8 v3\n",
        "block0:\nv1 = getcond z\nexit_jumpif -0x8 +0x8 v1",
    );
}

#[test]
fn fold_leaves_floats_alone() {
    let body = "block0:\nv1 = iconst.f64 0x3ff0000000000000\nv2 = fadd.f64 v1, v1\n\
                v3 = bitcast.i64 v2\nexit_ijump v3\n";
    gives("fold", body, body);
}

#[test]
fn fold_zeroing_vectors() {
    gives(
        "fold",
        "block0:\nv1 = getreg.v128 xmm0\nv2 = vxor v1, v1\nsetreg.v128 xmm0, v2\nexit_halt\n",
        "block0:\nv2 = vconst 0x0\nsetreg.v128 xmm0, v2\nexit_halt",
    );
}

#[test]
fn forward_in_a_block() {
    gives(
        "forward",
        "block0:\nv1 = getreg.i64 rax\nsetreg.i64 rcx, v1\nv2 = getreg.i64 rcx\nv3 = not.i64 v2\n\
         setreg.i64 rcx, v3\nexit_halt\n",
        "block0:\nv1 = getreg.i64 rax\nv3 = not.i64 v1\nsetreg.i64 rcx, v3\nexit_halt",
    );
}

#[test]
fn forward_keeps_writes_before_observers() {
    let observers = [
        "fuel 1",
        "v9 = load.i8 data v1",
        "store.i64 data v1, v1",
        "trapif 6 v3",
        "fence",
        "v9 = call.i64 cpuid 0x0",
        "v9 = call.i64 ldmxcsr 0x0 v4",
    ];
    for line in observers {
        let body = format!(
            "block0:\nv1 = iconst.i64 0x1\nv3 = iconst.i8 0x1\nv4 = iconst.i32 0x1\n\
             setreg.i64 rax, v1\n{line}\nv2 = iconst.i64 0x2\nsetreg.i64 rax, v2\nexit_halt\n"
        );
        let got = after("forward", &body);
        assert_eq!(got.matches("setreg").count(), 2, "{got}");
    }
    // RDTSC reads no register: the first write is not seen.
    let body = "block0:\nv1 = iconst.i64 0x1\nsetreg.i64 rax, v1\nv2 = call.i64 rdtsc 0x0\n\
                setreg.i64 rax, v2\nexit_halt\n";
    let got = after("forward", body);
    assert_eq!(got.matches("setreg").count(), 1, "{got}");
}

#[test]
fn forward_reads_again_after_a_helper_wrote() {
    gives(
        "forward",
        "block0:\nv1 = iconst.i64 0x1\nsetreg.i64 rax, v1\nsetreg.i64 fs_base, v1\n\
         v2 = call.i64 cpuid 0x0\nv3 = getreg.i64 rax\nv4 = getreg.i64 fs_base\nv5 = add.i64 v3, v4\n\
         exit_ijump v5\n",
        "block0:\nv1 = iconst.i64 0x1\nsetreg.i64 rax, v1\nsetreg.i64 fs_base, v1\n\
         v2 = call.i64 cpuid 0x0\nv3 = getreg.i64 rax\nv5 = add.i64 v3, v1\nexit_ijump v5",
    );
}

#[test]
fn forward_through_a_join_makes_one_param() {
    gives(
        "forward",
        "block0:\nv1 = getreg.i64 rax\nv2 = trunc.i8 v1\nbrif v2, block1, block2\n\
         block1:\nv3 = not.i64 v1\nsetreg.i64 rcx, v3\nbr block3\n\
         block2:\nsetreg.i64 rcx, v1\nbr block3\n\
         block3:\nv4 = getreg.i64 rcx\nv5 = getreg.i64 rax\nv6 = add.i64 v4, v5\nexit_ijump v6\n",
        "block0:\nv1 = getreg.i64 rax\nv2 = trunc.i8 v1\nbrif v2, block1, block2\n\
         block1:\nv3 = not.i64 v1\nsetreg.i64 rcx, v3\nbr block3(v3)\n\
         block2:\nsetreg.i64 rcx, v1\nbr block3(v1)\n\
         block3(v12: i64):\nv6 = add.i64 v12, v1\nexit_ijump v6",
    );
}

#[test]
fn forward_leaves_a_single_read_where_it_is() {
    let body = "block0:\nv1 = getcond z\nbrif v1, block1, block2\n\
                block1:\nv2 = getreg.i64 rax\nexit_ijump v2\nblock2:\nexit_halt\n";
    gives("forward", body, body);
}

#[test]
fn forward_drops_what_every_path_overwrites() {
    let body = |line: &str| {
        format!(
            "block0:\nv1 = iconst.i64 0x1\nv2 = trunc.i8 v1\nsetreg.i64 rax, v1\nbrif v2, block1, block2\n\
             block1:\n{line}\nv3 = iconst.i64 0x3\nsetreg.i64 rax, v3\nexit_halt\n\
             block2:\nv4 = iconst.i64 0x4\nsetreg.i64 rax, v4\nexit_halt\n"
        )
    };
    let count = |line| after("forward", &body(line)).matches("setreg").count();
    assert_eq!((count("fence"), count("")), (3, 2));
}

#[test]
fn flags_drops_only_the_overwritten() {
    gives(
        "flags",
        "block0:\nv1 = getreg.i64 rax\nsetflags.i64 logic v1\nsetflags.i64 add v1, v1\nfuel 1\n\
         setflags.i64 sub v1, v1\nv2 = getcond z\nsetflags.i64 inc v1, v1\nexit_jumpif +0x1 +0x2 v2\n",
        "block0:\nv1 = getreg.i64 rax\nsetflags.i64 add v1, v1\nfuel 1\n\
         setflags.i64 sub v1, v1\nv2 = getcond z\nsetflags.i64 inc v1, v1\nexit_jumpif +0x1 +0x2 v2",
    );
}

#[test]
fn flags_looks_through_a_dead_partial_change() {
    // xor; rol; add: the rotate keeps four flags, but nobody sees them.
    gives(
        "flags",
        "block0:\nv1 = getreg.i64 rax\nsetflags.i64 logic v1\nv2 = getflags\n\
         v3 = iconst.i64 0xd4\nv4 = and.i64 v2, v3\nsetflags.i64 raw v4\n\
         setflags.i64 add v1, v1\nexit_halt\n",
        "block0:\nv1 = getreg.i64 rax\nsetflags.i64 add v1, v1\nexit_halt",
    );
}

#[test]
fn fuse_compares() {
    for (cond, cc) in [
        ("b", "ult"),
        ("nb", "uge"),
        ("z", "eq"),
        ("nz", "ne"),
        ("be", "ule"),
        ("nbe", "ugt"),
        ("l", "slt"),
        ("nl", "sge"),
        ("le", "sle"),
        ("nle", "sgt"),
    ] {
        let body = |read: &str| {
            format!(
                "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nsetflags.i64 sub v1, v2\n\
                 br block1\nblock1:\nv3 = {read}\nexit_jumpif +0x1 +0x2 v3\n"
            )
        };
        let read = format!("getcond {cond}");
        gives(
            "fuse",
            &body(&read),
            &body(&format!("icmp.i64 {cc} v1, v2")),
        );
    }
}

#[test]
fn fuse_uses_the_difference_that_is_there() {
    gives(
        "fuse",
        "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nv3 = sub.i64 v1, v2\nsetreg.i64 rax, v3\n\
         setflags.i64 sub v1, v2\nv4 = getcond s\nexit_jumpif +0x1 +0x2 v4\n",
        "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nv3 = sub.i64 v1, v2\nsetreg.i64 rax, v3\n\
         setflags.i64 sub v1, v2\nv7 = iconst.i64 0x0\nv4 = icmp.i64 slt v3, v7\n\
         exit_jumpif +0x1 +0x2 v4",
    );
}

#[test]
fn fuse_needs_one_definition() {
    let body = "block0:\nv1 = getreg.i64 rax\nv2 = trunc.i8 v1\nbrif v2, block1, block2\n\
                block1:\nsetflags.i64 logic v1\nbr block2\n\
                block2:\nv3 = getcond z\nexit_jumpif +0x1 +0x2 v3\n";
    gives("fuse", body, body);
    let body = "block0:\nv1 = getreg.i64 rax\nsetflags.i64 logic v1\n\
                v2 = call.i64 rep_string 0x0 v1\nv3 = getcond z\nexit_jumpif +0x1 +0x2 v3\n";
    gives("fuse", body, body);
}

#[test]
fn fuse_takes_single_flags_from_an_image() {
    gives(
        "fuse",
        "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nsetflags.i64 sub v1, v2\nv3 = getflags\n\
         v4 = iconst.i64 0x40\nv5 = and.i64 v3, v4\nsetflags.i64 raw v5\nexit_halt\n",
        "block0:\nv1 = getreg.i64 rax\nv2 = getreg.i64 rcx\nsetflags.i64 sub v1, v2\n\
         v8 = icmp.i64 eq v1, v2\nv9 = zext.i64 v8\nv10 = iconst.i64 0x6\nv5 = shl.i64 v9, v10\n\
         setflags.i64 raw v5\nexit_halt",
    );
    // With another use of the whole image it stays.
    let body = "block0:\nv1 = getreg.i64 rax\nsetflags.i64 dec v1, v1\nv3 = getflags\n\
                setreg.i64 rax, v3\nexit_halt\n";
    gives("fuse", body, body);
}

#[test]
fn dce_drops_unused_but_no_load() {
    gives(
        "dce",
        "block0:\nv1 = getreg.i64 rax\nv2 = not.i64 v1\nv3 = copy.i64 v1\nv4 = load.i64 data v3\n\
         v5 = call.i64 pdep 0x0 v2, v2\nv6 = call.i64 rdtsc 0x0\nexit_halt\n",
        "block0:\nv1 = getreg.i64 rax\nv4 = load.i64 data v1\nv6 = call.i64 rdtsc 0x0\nexit_halt",
    );
}

#[test]
fn dce_drops_params_that_only_feed_themselves() {
    gives(
        "dce",
        "block0:\nv1 = getreg.i64 rax\nbr block1(v1, v1)\n\
         block1(v2: i64, v3: i64):\nfuel 1\nv4 = not.i64 v2\nv5 = trunc.i8 v3\n\
         brif v5, block1(v4, v3), block2\nblock2:\nexit_halt\nblock3:\nbr block3\n",
        "block0:\nv1 = getreg.i64 rax\nbr block1(v1)\n\
         block1(v3: i64):\nfuel 1\nv5 = trunc.i8 v3\nbrif v5, block1(v3), block2\nblock2:\nexit_halt",
    );
}

#[test]
fn switches_have_names() {
    let mut set = PassSet::default();
    assert!(set.fold && !set.break_add);
    for name in PassSet::NAMES {
        set.set(name, false).expect("a known name");
    }
    assert_eq!(set, PassSet::NONE);
    let e = set.set("magic", true).expect_err("no such pass");
    assert!(e.to_string().contains("magic") && e.to_string().contains("forward"));
}

#[test]
fn a_pass_that_breaks_the_region_is_named() {
    let text = format!("{HEAD}block0:\nv1 = iconst.i64 0x1\nv2 = add.i64 v1, v1\nexit_ijump v2\n");
    let mut region = parse(&text).expect("valid text");
    let set = PassSet {
        break_add: true,
        verify: true,
        ..PassSet::NONE
    };
    // Wrong, but valid: only running it can tell.
    passes::run(&mut region, &set).expect("still valid");
    assert!(region.to_string().contains("sub.i64 v1, v1"));
    region.blocks[0].insts.clear();
    let e = passes::run(&mut region, &set).expect_err("no terminator");
    assert_eq!(e.pass, None);
    assert_eq!(e.after("fold").pass, Some("fold"));
}
