//! The coverage table: what each instruction form's test has come to, in each code size.

use super::case::Mode;
use super::forms::{self, Class};
use iced_x86::{Code, CpuidFeature};
use std::collections::BTreeMap;

/// What has come of a form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Every case agreed.
    Ok,
    /// Some did not; a few of them described.
    Failing(String),
    /// Our engines raise #UD where the host does not.
    NotYet,
    /// Not compared here, for a reason.
    System(&'static str),
    /// Implemented, but not compared here: its state is not among the cases'.
    Elsewhere,
    /// No bytes decode as the form in this mode.
    NoEncoding,
    /// The host cannot run it.
    NoHost,
}

impl Status {
    /// What stands in the table.
    pub fn cell(&self) -> String {
        match self {
            Status::Ok => "ok".into(),
            Status::Failing(_) => "**differs**".into(),
            Status::NotYet => "not yet".into(),
            Status::System(why) => (*why).into(),
            Status::Elsewhere => "runs, compared elsewhere".into(),
            Status::NoEncoding => "no encoding".into(),
            Status::NoHost => "not compared".into(),
        }
    }
}

/// The whole table.
#[derive(Default)]
pub struct Coverage(pub BTreeMap<(Code, Mode), Status>);

fn feature_names(code: Code) -> String {
    let names: Vec<String> = code
        .cpuid_features()
        .iter()
        .map(|f: &CpuidFeature| format!("{f:?}"))
        .collect();
    names.join(" and ")
}

impl Coverage {
    /// The page for `docs/`.
    pub fn page(&self) -> String {
        let mut out = String::from(
            "# Coverage by instruction form\n\n\
             Every form of iced-x86's opcode table, against the host CPU, in the interpreter and\n\
             in compiled code. Made by `METAPHRASE_BLESS=1 cargo test --test differential`, and\n\
             checked by the same test without the variable.\n\n\
             - **ok**: every random case agreed with the host (registers, flags but for undefined\n\
             \x20 ones, memory, faults).\n\
             - **not yet**: guest #UD; CPUID does not advertise it.\n\
             - **no encoding**: no bytes decode as the form in this mode (encodings on whose\n\
             \x20 meaning CPU vendors differ, such as 66 before a near branch in 64-bit code).\n\
             - anything else is the reason why the form is not compared here but tested with the\n\
             \x20 runtime.\n\n",
        );
        let mut not_yet: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        let mut rows = [String::new(), String::new(), String::new()];
        for code in Code::values() {
            let info = code.op_code();
            if !info.is_instruction()
                || !Mode::ALL
                    .iter()
                    .any(|m| info.is_available_in_mode(m.bits()))
            {
                continue;
            }
            let section = match forms::class(code) {
                Class::Integer | Class::Varying => 0,
                Class::Sse => 1,
                Class::System(_) => 2,
                Class::NotYet => {
                    let runs = Mode::ALL
                        .iter()
                        .any(|&m| self.0.get(&(code, m)) == Some(&Status::Elsewhere));
                    not_yet.entry(feature_names(code)).or_default()[usize::from(runs)] += 1;
                    continue;
                }
            };
            let cell = |mode: Mode| {
                if info.is_available_in_mode(mode.bits()) {
                    self.0.get(&(code, mode)).map_or("?".into(), Status::cell)
                } else {
                    "".to_string()
                }
            };
            rows[section] += &format!(
                "| `{}` | `{}` | {} | {} | {} |\n",
                info.instruction_string().replace('|', "\\|"),
                info.op_code_string(),
                cell(Mode::M16),
                cell(Mode::M32),
                cell(Mode::M64),
            );
        }
        let titles = ["Integer", "MMX, SSE and AVX", "Runtime and system"];
        for (title, rows) in titles.iter().zip(rows) {
            out += &format!(
                "## {title}\n\n| form | encoding | 16-bit | 32-bit | 64-bit |\n|---|---|---|---|---|\n{rows}\n"
            );
        }
        out += "## Not compared here\n\nForms by the CPUID feature that they need. Those that raise #UD are not \
                implemented, and\nCPUID does not advertise them; the others run, but \
                nothing here compares them.\n\n| feature | raise #UD | run |\n|---|---|---|\n";
        for (feature, [undefined, run]) in not_yet {
            out += &format!("| {feature} | {undefined} | {run} |\n");
        }
        out
    }

    /// The features whose forms the host cannot run.
    pub fn missing_on_host(&self) -> std::collections::BTreeSet<String> {
        let missing = self.0.iter().filter(|(_, s)| **s == Status::NoHost);
        missing.map(|((code, _), _)| feature_names(*code)).collect()
    }

    /// One line a status, with counts.
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<(Mode, String), usize> = BTreeMap::new();
        for ((_, mode), status) in &self.0 {
            *counts.entry((*mode, status.cell())).or_default() += 1;
        }
        counts
            .iter()
            .map(|((mode, cell), n)| format!("{}-bit {cell}: {n}\n", mode.bits()))
            .collect()
    }
}
