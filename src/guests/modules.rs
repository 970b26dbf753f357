//! Kernel modules: what they need and what they are for stands in their `.modinfo` section, since
//! packages have no `modules.dep`. The files that `modprobe` reads are made here.

use super::{Error, at, run};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module with what its `.modinfo` says.
#[derive(Debug)]
pub struct Module {
    /// Its path below `/lib/modules/VERSION`, without a suffix for compression.
    pub path: String,
    /// Its bytes, not compressed.
    pub bytes: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// Modules with all that they depend on, by name.
#[derive(Debug, Default)]
pub struct Modules {
    /// The kernel's version, as `uname -r` gives it.
    pub version: String,
    /// Name to module.
    pub by_name: BTreeMap<String, Module>,
}

impl Modules {
    /// Reads the modules of `names` with their dependencies, from a tree with `lib/modules/VERSION`
    /// in it. What the kernel does not have as a module is built in, or is not to be had: it is
    /// left out.
    pub fn read(tree: &Path, names: &[&str]) -> Result<Modules, Error> {
        let (version, root) = version(tree)?;
        let mut paths = BTreeMap::new();
        index(&root, &mut paths)?;
        let mut modules = Modules {
            version,
            by_name: BTreeMap::new(),
        };
        let mut wanted: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        while let Some(name) = wanted.pop() {
            let (Some(path), false) = (paths.get(&name), modules.by_name.contains_key(&name))
            else {
                continue;
            };
            let module = Module::read(&root, path)?;
            wanted.extend(module.depends.iter().cloned());
            modules.by_name.insert(name, module);
        }
        Ok(modules)
    }

    /// `modules.dep`: each module's path, and the paths of all that must be loaded before it, the
    /// last of them first.
    pub fn dependencies(&self) -> String {
        let mut text = String::new();
        for (name, module) in &self.by_name {
            let mut order = Vec::new();
            self.visit(name, &mut order, &mut Vec::new());
            // The module itself comes last.
            order.pop();
            let paths = order.iter().rev().map(|name| &*self.by_name[*name].path);
            let paths: Vec<&str> = paths.collect();
            text += &format!("{}: {}\n", module.path, paths.join(" "));
        }
        text
    }

    /// Appends what `name` needs, then `name`.
    fn visit<'m>(&'m self, name: &str, order: &mut Vec<&'m str>, path: &mut Vec<&'m str>) {
        let Some((name, module)) = self.by_name.get_key_value(name) else {
            return;
        };
        if order.contains(&&**name) || path.contains(&&**name) {
            return;
        }
        path.push(name);
        for needed in &module.depends {
            self.visit(needed, order, path);
        }
        path.pop();
        order.push(name);
    }

    /// `modules.alias`: what devices and file systems ask for by other names.
    pub fn aliases(&self) -> String {
        let lines = self.by_name.iter().flat_map(|(name, module)| {
            let aliases = module.aliases.iter();
            aliases.map(move |alias| format!("alias {alias} {name}\n"))
        });
        lines.collect()
    }
}

impl Module {
    fn read(root: &Path, path: &Path) -> Result<Module, Error> {
        let suffix = path.extension().unwrap_or_default().to_string_lossy();
        let bytes = match &*suffix {
            "xz" => run::unpacked(path, "xz")?,
            "gz" => run::unpacked(path, "gzip")?,
            "zst" => run::unpacked(path, "zstd")?,
            _ => fs::read(path).map_err(at(path))?,
        };
        let info = info(&bytes)
            .ok_or_else(|| Error::Content(format!("{} is no kernel module", path.display())))?;
        let values = |key: &str| -> Vec<String> {
            let entries = info.iter().filter_map(|(k, v)| (k == key).then_some(v));
            entries.cloned().collect()
        };
        let depends = values("depends");
        let depends = depends.iter().flat_map(|list| list.split(','));
        let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
        let end = path.find(".ko").map_or(path.len(), |n| n + 3);
        Ok(Module {
            path: path[..end].into(),
            bytes,
            depends: depends.filter(|d| !d.is_empty()).map(normal).collect(),
            aliases: values("alias"),
        })
    }
}

/// The version whose modules are in a tree, and their directory.
fn version(tree: &Path) -> Result<(String, PathBuf), Error> {
    for prefix in ["lib/modules", "usr/lib/modules"] {
        let directory = tree.join(prefix);
        if let Some(Ok(entry)) = fs::read_dir(&directory).ok().and_then(|mut d| d.next()) {
            return Ok((entry.file_name().to_string_lossy().into(), entry.path()));
        }
    }
    Err(Error::Content("the kernel's package has no modules".into()))
}

/// All modules below a directory by name.
fn index(directory: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        if path.is_dir() {
            index(&path, paths)?;
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((stem, _)) = name.split_once(".ko") {
            paths.insert(normal(stem), path.clone());
        }
    }
    Ok(())
}

/// Names are the same with `-` and `_`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The keys and values of `.modinfo`.
fn info(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let file = object::File::parse(bytes).ok()?;
    let section = file.section_by_name(".modinfo")?;
    let data = section.data().ok()?;
    let texts = data.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let pairs = texts.filter_map(|text| {
        let (key, value) = text.split_once('=')?;
        Some((key.to_string(), value.to_string()))
    });
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(table: &[(&str, &[&str])]) -> Modules {
        let module = |&(name, depends): &(&str, &[&str])| {
            let module = Module {
                path: format!("kernel/{name}.ko"),
                bytes: Vec::new(),
                depends: depends.iter().map(|d| d.to_string()).collect(),
                aliases: vec![format!("for-{name}")],
            };
            (name.to_string(), module)
        };
        Modules {
            version: "1".into(),
            by_name: table.iter().map(module).collect(),
        }
    }

    #[test]
    fn what_is_needed_first_comes_last() {
        let m = modules(&[("a", &["b", "c", "builtin"]), ("b", &["c"]), ("c", &[])]);
        let dep = m.dependencies();
        assert!(
            dep.contains("kernel/a.ko: kernel/b.ko kernel/c.ko\n"),
            "{dep}"
        );
        assert!(dep.contains("kernel/c.ko: \n"), "{dep}");
        assert!(m.aliases().contains("alias for-b b\n"));
    }

    #[test]
    fn a_circle_ends() {
        let m = modules(&[("a", &["b"]), ("b", &["a"])]);
        assert!(m.dependencies().contains("kernel/a.ko: kernel/b.ko\n"));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(info(b"\x7fELF").is_none());
        assert!(info(&[]).is_none());
    }
}
