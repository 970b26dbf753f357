//! CPU models: what CPUID says. Only what the frontend implements and tests may be advertised.

/// A CPU model by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuModel {
    name: &'static str,
    /// Leaf 1 ECX.
    features_c: u32,
    /// Leaf 1 EDX.
    features_d: u32,
    /// Leaf 7.0 EBX.
    structured_b: u32,
    /// Leaf 80000001 ECX.
    extended_c: u32,
    /// Leaf 80000001 EDX.
    extended_d: u32,
}

/// A name that no model has.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("unknown CPU model '{name}'; did you mean '{nearest}'? (known: {known})")]
pub struct UnknownModel {
    /// The name.
    pub name: String,
    /// The known name that is nearest to it.
    pub nearest: &'static str,
    /// All known names.
    pub known: String,
}

/// FPU, TSC, CX8, CMOV, MMX, FXSR, SSE, SSE2. Glibc calls a 64-bit CPU without MMX broken, so MMX
/// is advertised with the SSE forms of its instructions.
const BASE_D: u32 = 1 | 1 << 4 | 1 << 8 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;
/// SYSCALL (64-bit mode), NX, RDTSCP, long mode; and the bits that mirror leaf 1 on AMD.
const EXT_D: u32 = 1 << 11 | 1 << 20 | 1 << 29;
const RDTSCP: u32 = 1 << 27;
const LAHF64: u32 = 1 << 0;
const LZCNT: u32 = 1 << 5;
const CX16: u32 = 1 << 13;
const MOVBE: u32 = 1 << 22;
const POPCNT: u32 = 1 << 23;
const BMI1: u32 = 1 << 3;
const BMI2: u32 = 1 << 8;
const ADX: u32 = 1 << 19;

const MODELS: &[CpuModel] = &[
    CpuModel {
        name: "x86-64-v1",
        features_c: 0,
        features_d: BASE_D,
        structured_b: 0,
        extended_c: 0,
        extended_d: EXT_D,
    },
    CpuModel {
        name: "max",
        features_c: CX16 | MOVBE | POPCNT,
        features_d: BASE_D,
        structured_b: BMI1 | BMI2 | ADX,
        extended_c: LAHF64 | LZCNT,
        extended_d: EXT_D | RDTSCP,
    },
];

/// The vendor string, twelve characters. Glibc reads the feature bits only of vendors that it
/// knows, and refuses to load its own shared library on others; the extended leaves are AMD's.
const VENDOR: &[u8; 12] = b"AuthenticAMD";
/// The brand string, up to 48 characters.
const BRAND: &str = "Metaphrase virtual CPU";

impl CpuModel {
    /// The model with everything that is implemented.
    pub fn max() -> CpuModel {
        MODELS[MODELS.len() - 1]
    }

    /// The model with that name.
    pub fn from_name(name: &str) -> Result<CpuModel, UnknownModel> {
        if let Some(model) = MODELS.iter().find(|m| m.name == name) {
            return Ok(*model);
        }
        let distance = |m: &&CpuModel| edit_distance(name, m.name);
        let nearest = MODELS.iter().min_by_key(distance).map_or("max", |m| m.name);
        let known: Vec<&str> = Self::names().collect();
        Err(UnknownModel {
            name: name.to_owned(),
            nearest,
            known: known.join(", "),
        })
    }

    /// The names of all models.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|m| m.name)
    }

    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// EAX, EBX, ECX, EDX of a leaf; zeros for leaves that do not exist.
    pub fn cpuid(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let word = |bytes: &[u8], n: usize| {
            let at = |i: usize| u32::from(bytes.get(4 * n + i).copied().unwrap_or(0));
            at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24
        };
        match leaf {
            0 => [7, word(VENDOR, 0), word(VENDOR, 2), word(VENDOR, 1)],
            // Family 6, model 15; CLFLUSH line of 8 quadwords, one logical processor.
            1 => [0x6f0, 8 << 8 | 1 << 16, self.features_c, self.features_d],
            7 if sub == 0 => [0, self.structured_b, 0, 0],
            0x8000_0000 => [
                0x8000_0008,
                word(VENDOR, 0),
                word(VENDOR, 2),
                word(VENDOR, 1),
            ],
            0x8000_0001 => [0, 0, self.extended_c, self.extended_d],
            0x8000_0002..=0x8000_0004 => {
                let first = (leaf - 0x8000_0002) as usize * 4;
                std::array::from_fn(|i| word(BRAND.as_bytes(), first + i))
            }
            // Caches (C libraries choose their copy loops by them): first level 32 KiB each of
            // data and code, 8-way; second level 512 KiB, 8-way; third level 4 MiB, 16-way. All
            // have 64-byte lines.
            0x8000_0005 => [0, 0, 32 << 24 | 8 << 16 | 0x140, 32 << 24 | 8 << 16 | 0x140],
            0x8000_0006 => [0, 0, 512 << 16 | 6 << 12 | 0x140, 8 << 18 | 8 << 12 | 0x140],
            // 40 bits of physical, 48 of linear address.
            0x8000_0008 => [40 | 48 << 8, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// Levenshtein distance, for suggestions.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_get_a_suggestion() {
        let error = CpuModel::from_name("x86-64-v9").unwrap_err();
        assert_eq!(error.nearest, "x86-64-v1");
        assert_eq!(CpuModel::from_name("mx").unwrap_err().nearest, "max");
        assert_eq!(CpuModel::from_name("max").unwrap().name(), "max");
    }

    #[test]
    fn nothing_beyond_sse2_is_advertised() {
        let c = CpuModel::max().cpuid(1, 0)[2];
        // SSE3, PCLMULQDQ, SSSE3, FMA, SSE4.1, SSE4.2, AES, XSAVE, OSXSAVE, AVX.
        let later = 1 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 19 | 1 << 20 | 0b1111 << 25;
        assert_eq!(c & later, 0);
        assert_eq!(CpuModel::max().cpuid(7, 0)[1] & (1 << 5 | 1 << 16), 0);
    }

    #[test]
    fn vendor_and_brand_read_back() {
        let [_, b, c, d] = CpuModel::max().cpuid(0, 0);
        let bytes: Vec<u8> = [b, d, c].into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(bytes, VENDOR);
        let brand: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| CpuModel::max().cpuid(leaf, 0))
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(&brand[..BRAND.len()], BRAND.as_bytes());
        assert_eq!(brand.len(), 48);
    }
}
