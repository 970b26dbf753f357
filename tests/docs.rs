//! The documents name files that exist.

use std::path::Path;

const PREFIXES: [&str; 10] = [
    "frontend/",
    "ir/",
    "backend/",
    "runtime/",
    "devices/",
    "tests/",
    "benches/",
    "src/",
    "docs/",
    "README.md",
];

#[test]
fn paths_in_the_documents_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        documents.push(entry.unwrap().path());
    }
    let (mut seen, mut missing) = (0, Vec::new());
    for document in documents {
        // A checkout without a README is as fine as one with.
        let Ok(text) = std::fs::read_to_string(&document) else {
            continue;
        };
        for (n, line) in text.lines().enumerate() {
            for word in line.split('`').skip(1).step_by(2) {
                // `path:line`, `path …arguments` and patterns are not paths.
                let path = word.split([' ', ':', '#']).next().unwrap_or_default();
                let named = PREFIXES.iter().any(|p| path.starts_with(p));
                if !named || path.contains(['*', '<', '{', '…']) {
                    continue;
                }
                seen += 1;
                if !root.join(path).exists() {
                    missing.push(format!("{}:{}: {path}", document.display(), n + 1));
                }
            }
        }
    }
    assert!(seen > 5, "only {seen} paths found");
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}
