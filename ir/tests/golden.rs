//! Golden files: `golden/NAME.ir` is a region, `golden/NAME.out` what all passes make of it.
//!
//! `BLESS=1 cargo test -p metaphrase-ir --test golden` writes the `.out` files; read the diff.

use metaphrase_ir::{PassSet, parse, passes};
use std::path::Path;

#[test]
fn passes_give_the_golden_text() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BLESS").is_some();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&dir).expect("golden directory") {
        let path = entry.expect("directory entry").path();
        if path.extension().is_none_or(|e| e != "ir") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).expect("golden input");
        let mut region = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let set = PassSet {
            verify: true,
            ..PassSet::default()
        };
        passes::run(&mut region, &set).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let out = path.with_extension("out");
        let got = region.to_string();
        if bless {
            std::fs::write(&out, &got).expect("golden output");
        } else if std::fs::read_to_string(&out).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", path.display()));
        }
    }
    assert!(seen >= 8, "only {seen} golden files");
    assert!(wrong.is_empty(), "differ:\n{}", wrong.join("\n"));
}
