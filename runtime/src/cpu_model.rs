//! CPU models: what CPUID says, and what the lifter accepts. Both come from the feature table of
//! the frontend, so only what is implemented and tested can be advertised.

use crate::helpers::xsave;
use crate::memory::paged::MAXPHYADDR;
use crate::system::features::{SystemFeature, SystemFeatures};
use metaphrase_frontend::{CpuidWord, Feature, Features};

/// A CPU model: a name from the table, perhaps with features added or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuModel {
    name: &'static str,
    /// Leaf 1 EAX: family, model, stepping.
    signature: u32,
    features: Features,
    system: SystemFeatures,
}

/// Why text names no CPU model.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CpuModelError {
    /// No model has the name.
    #[error("unknown CPU model '{name}'; did you mean '{nearest}'? (known: {known})")]
    Unknown {
        /// The name.
        name: String,
        /// The known name that is nearest to it.
        nearest: &'static str,
        /// All known names.
        known: String,
    },
    /// The model needs features that are not implemented.
    #[error("CPU model '{name}' is not there yet: it needs {missing}; the nearest is '{nearest}'")]
    NotYet {
        /// The name.
        name: &'static str,
        /// The features that are missing.
        missing: String,
        /// The largest model that it contains.
        nearest: &'static str,
    },
    /// No feature has the name.
    #[error("unknown CPU feature '{name}'; did you mean '{nearest}'? (known: {known})")]
    UnknownFeature {
        /// The name.
        name: String,
        /// The known name that is nearest to it.
        nearest: &'static str,
        /// All known names.
        known: String,
    },
    /// A feature that is not implemented was asked for.
    #[error("CPU feature '{name}' is not there yet")]
    FeatureNotYet {
        /// The name.
        name: &'static str,
    },
    /// What follows the model's name is not `+feature` or `-feature`.
    #[error("'{text}' after the CPU model is neither +feature nor -feature")]
    Sign {
        /// What stands there.
        text: String,
    },
}

const I486: Features = Features::FPU;
const PENTIUM: Features = I486.and(Features::TSC).and(Features::CX8);
const PENTIUM3: Features = PENTIUM
    .and(Features::SEP)
    .and(Features::CMOV)
    .and(Features::MMX)
    .and(Features::FXSR)
    .and(Features::SSE);
/// Level 1 of the System V psABI for x86-64, and what every 64-bit CPU has besides.
const V1: Features = PENTIUM3
    .and(Features::SSE2)
    .and(Features::CLFSH)
    .and(Features::SYSCALL)
    .and(Features::NX)
    .and(Features::LM);
/// Level 2.
const V2: Features = V1
    .and(Features::CX16)
    .and(Features::LAHF_LM)
    .and(Features::POPCNT)
    .and(Features::SSE3)
    .and(Features::SSSE3)
    .and(Features::SSE41)
    .and(Features::SSE42);

/// Level 3.
const V3: Features = V2
    .and(Features::XSAVE)
    .and(Features::XSAVEOPT)
    .and(Features::XSAVEC)
    .and(Features::AVX)
    .and(Features::AVX2)
    .and(Features::FMA)
    .and(Features::F16C)
    .and(Features::BMI1)
    .and(Features::BMI2)
    .and(Features::LZCNT)
    .and(Features::MOVBE);

/// What a Pentium's system has.
const PENTIUM_SYSTEM: SystemFeatures = SystemFeatures::VME
    .and(SystemFeatures::DE)
    .and(SystemFeatures::PSE)
    .and(SystemFeatures::MSR)
    .and(SystemFeatures::MCE);
/// What a Pentium III's has.
const PENTIUM3_SYSTEM: SystemFeatures = PENTIUM_SYSTEM
    .and(SystemFeatures::PAE)
    .and(SystemFeatures::MTRR)
    .and(SystemFeatures::PGE)
    .and(SystemFeatures::MCA)
    .and(SystemFeatures::PAT)
    .and(SystemFeatures::PSE36);
/// What every 64-bit CPU's has: it says that it does not speculate, so that kernels leave out
/// defences that would be slow here, and shows how the time-stamp counter was adjusted, so that they
/// trust it more than interrupts, which may come late.
const V1_SYSTEM: SystemFeatures = PENTIUM3_SYSTEM
    .and(SystemFeatures::TSC_ADJUST)
    .and(SystemFeatures::TSC_DEADLINE)
    .and(SystemFeatures::SPEC_CTRL)
    .and(SystemFeatures::BHI_CTRL)
    .and(SystemFeatures::ARCH_CAPABILITIES);
/// Everything but MONITOR: a waiting virtual CPU is better served by HLT.
const MAX_SYSTEM: SystemFeatures = SystemFeatures::MAX.without(SystemFeatures::MONITOR);

const fn model(
    name: &'static str,
    signature: u32,
    features: Features,
    system: SystemFeatures,
) -> CpuModel {
    CpuModel {
        name,
        signature,
        features,
        system,
    }
}

/// Every model, each with more than the one before.
const MODELS: &[CpuModel] = &[
    model("486", 0x480, I486, SystemFeatures::NONE),
    model("pentium", 0x52c, PENTIUM, PENTIUM_SYSTEM),
    model("pentium3", 0x673, PENTIUM3, PENTIUM3_SYSTEM),
    model("x86-64-v1", 0x6f0, V1, V1_SYSTEM),
    model("x86-64-v2", 0x6f0, V2, V1_SYSTEM),
    model("x86-64-v3", 0x6f0, V3, MAX_SYSTEM),
    model("max", 0x6f0, Features::MAX, MAX_SYSTEM),
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

    /// The model that text such as `max` or `max,-sse2,+popcnt` describes.
    ///
    /// # Errors
    /// If it names a model or a feature that does not exist or is not implemented.
    pub fn from_name(text: &str) -> Result<CpuModel, CpuModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let Some(base) = MODELS.iter().find(|m| m.name == name) else {
            return Err(CpuModelError::Unknown {
                name: name.to_owned(),
                nearest: nearest(name, Self::names()).unwrap_or("max"),
                known: list(Self::names()),
            });
        };
        if !base.is_available() {
            let missing = base.features.without(Features::MAX);
            let smaller = |m: &&CpuModel| m.is_available() && base.features.has(m.features);
            return Err(CpuModelError::NotYet {
                name: base.name,
                missing: list(missing.iter().map(Feature::name)),
                nearest: MODELS.iter().rfind(smaller).map_or("max", |m| m.name),
            });
        }
        let mut model = *base;
        for part in parts {
            model.change(part)?;
        }
        Ok(model)
    }

    /// Adds or takes away a feature, as `+name` or `-name` says.
    fn change(&mut self, text: &str) -> Result<(), CpuModelError> {
        let (name, on) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(name), _) => (name, true),
            (_, Some(name)) => (name, false),
            _ => return Err(CpuModelError::Sign { text: text.into() }),
        };
        if let Some(&feature) = SystemFeature::ALL.iter().find(|f| f.name() == name) {
            let set = SystemFeatures(1 << feature as u32);
            self.system = if on {
                self.system.and(set)
            } else {
                self.system.without(set)
            };
            return Ok(());
        }
        let system = SystemFeature::ALL.iter().map(|f| f.name());
        let names = || Feature::ALL.iter().map(|f| f.name()).chain(system.clone());
        let Some(&feature) = Feature::ALL.iter().find(|f| f.name() == name) else {
            return Err(CpuModelError::UnknownFeature {
                name: name.into(),
                nearest: nearest(name, names()).unwrap_or("sse2"),
                known: list(names()),
            });
        };
        let set = Features(1 << feature as u32);
        if !on {
            self.features = self.features.without(set).consistent();
        } else if Features::MAX.has(set) {
            self.features = self.features.and(set).complete();
        } else {
            let name = feature.name();
            return Err(CpuModelError::FeatureNotYet { name });
        }
        Ok(())
    }

    /// Whether everything that the model offers is implemented.
    fn is_available(&self) -> bool {
        Features::MAX.has(self.features)
    }

    /// The names of all models that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().filter(|m| m.is_available()).map(|m| m.name)
    }

    /// The model's name, without what was added or taken away.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the model offers.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the model offers to a whole system besides.
    pub fn system_features(&self) -> SystemFeatures {
        self.system
    }

    /// Leaf 1 EAX: family, model, stepping.
    pub fn signature(&self) -> u32 {
        self.signature
    }

    /// The width of a physical address (MAXPHYADDR) in a whole system.
    pub fn physical_bits(&self) -> u32 {
        if self.features.has(Features::LM) {
            MAXPHYADDR
        } else if self.system.has(SystemFeatures::PAE) {
            36
        } else {
            32
        }
    }

    /// EAX, EBX, ECX, EDX of a leaf, as a Linux program sees them; zeros for leaves that do not
    /// exist.
    pub fn cpuid(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let word = |bytes: &[u8], n: usize| {
            let at = |i: usize| u32::from(bytes.get(4 * n + i).copied().unwrap_or(0));
            at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24
        };
        let bits = |word| self.features.cpuid(word);
        match leaf {
            0 => [
                self.last_leaf(),
                word(VENDOR, 0),
                word(VENDOR, 2),
                word(VENDOR, 1),
            ],
            1 => {
                // One logical processor, and the CLFLUSH line in quadwords.
                let line = if bits(CpuidWord::Leaf1Edx) & 1 << 19 != 0 {
                    8 << 8
                } else {
                    0
                };
                // OSXSAVE.
                let enabled = if self.features.has(Features::XSAVE) {
                    1 << 27
                } else {
                    0
                };
                [
                    self.signature,
                    line | 1 << 16,
                    bits(CpuidWord::Leaf1Ecx) | enabled,
                    bits(CpuidWord::Leaf1Edx),
                ]
            }
            7 if sub == 0 => [0, bits(CpuidWord::Leaf7Ebx), bits(CpuidWord::Leaf7Ecx), 0],
            13 => self.state_components(sub),
            // A CPU before the extended leaves answers with zeros.
            0x8000_0000.. if !self.has_extended_leaves() => [0; 4],
            0x8000_0000 => [
                0x8000_0008,
                word(VENDOR, 0),
                word(VENDOR, 2),
                word(VENDOR, 1),
            ],
            0x8000_0001 => [
                0,
                0,
                bits(CpuidWord::ExtendedEcx),
                bits(CpuidWord::ExtendedEdx),
            ],
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

    /// XCR0: the state components that XSAVE saves.
    pub fn xcr0(&self) -> u64 {
        if !self.features.has(Features::XSAVE) {
            0
        } else if self.features.has(Features::AVX) {
            xsave::X87 | xsave::SSE | xsave::AVX
        } else {
            xsave::X87 | xsave::SSE
        }
    }

    /// The size of an XSAVE image with every component of XCR0.
    pub fn xsave_size(&self) -> u32 {
        let upper = if self.xcr0() & xsave::AVX != 0 {
            256
        } else {
            0
        };
        xsave::UPPER as u32 + upper
    }

    /// Leaf 13.
    fn state_components(&self, sub: u32) -> [u32; 4] {
        let xcr0 = self.xcr0();
        match sub {
            _ if xcr0 == 0 => [0; 4],
            0 => [xcr0 as u32, self.xsave_size(), self.xsave_size(), 0],
            1 => {
                let size = if self.features.has(Features::XSAVEC) {
                    self.xsave_size()
                } else {
                    0
                };
                [self.features.cpuid(CpuidWord::Leaf13Eax), size, 0, 0]
            }
            2 if xcr0 & xsave::AVX != 0 => [256, xsave::UPPER as u32, 0, 0],
            _ => [0; 4],
        }
    }

    /// The last basic leaf.
    fn last_leaf(&self) -> u32 {
        if self.features.has(Features::XSAVE) {
            return 13;
        }
        let words = [CpuidWord::Leaf7Ebx, CpuidWord::Leaf7Ecx];
        if self.has_extended_leaves() || words.iter().any(|&w| self.features.cpuid(w) != 0) {
            7
        } else {
            1
        }
    }

    fn has_extended_leaves(&self) -> bool {
        let words = [CpuidWord::ExtendedEcx, CpuidWord::ExtendedEdx];
        words.iter().any(|&w| self.features.cpuid(w) != 0)
    }
}

/// Names with commas between.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The name that is nearest to what was written.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.min_by_key(|known| edit_distance(name, known))
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
        let suggested = |text| match CpuModel::from_name(text).unwrap_err() {
            CpuModelError::Unknown { nearest, .. }
            | CpuModelError::UnknownFeature { nearest, .. } => nearest,
            other => panic!("{other}"),
        };
        assert_eq!(suggested("x86-64-v9"), "x86-64-v1");
        assert_eq!(suggested("mx"), "max");
        assert_eq!(suggested("pentiun"), "pentium");
        assert_eq!(suggested("max,-popcn"), "popcnt");
        assert_eq!(suggested("max,+sse2,+bmi3"), "bmi1");
        let text = CpuModel::from_name("max,sse2").unwrap_err().to_string();
        assert!(text.contains("'sse2'"), "{text}");
    }

    #[test]
    fn features_come_and_go() {
        let model = CpuModel::from_name("max,-sse2,-popcnt,+popcnt").unwrap();
        assert_eq!(model.features(), Features::MAX.without(Features::SSE2));
        assert_eq!(model.cpuid(1, 0)[3] & 1 << 26, 0);
        assert_ne!(model.cpuid(1, 0)[2] & 1 << 23, 0);
        // AVX comes with XSAVE, and goes with it.
        let with = CpuModel::from_name("x86-64-v2,+fma").unwrap();
        let both = Features::AVX.and(Features::XSAVE);
        assert!(with.features().has(both));
        assert_eq!(with.cpuid(13, 0), [7, 832, 832, 0]);
        let without = CpuModel::from_name("max,-xsave").unwrap();
        assert_eq!(without.features().0 & both.0, 0);
        assert_eq!(without.cpuid(13, 0), [0; 4]);
        let old = CpuModel::from_name("486").unwrap();
        assert_eq!(old.cpuid(1, 0), [0x480, 1 << 16, 0, 1]);
        assert_eq!(old.cpuid(0, 0)[0], 1);
        assert_eq!(old.cpuid(0x8000_0000, 0), [0; 4]);
    }

    #[test]
    fn models_offer_only_what_there_is() {
        for name in CpuModel::names() {
            let model = CpuModel::from_name(name).unwrap();
            assert!(Features::MAX.has(model.features()), "{name}");
        }
        for model in MODELS.iter().filter(|m| !m.is_available()) {
            match CpuModel::from_name(model.name).unwrap_err() {
                CpuModelError::NotYet { nearest, .. } => {
                    assert!(CpuModel::names().any(|n| n == nearest));
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Every bit of every CPUID register is that of a feature that the lifter asks about.
    #[test]
    fn cpuid_shows_the_features_and_nothing_else() {
        for name in CpuModel::names() {
            let whole = CpuModel::from_name(name).unwrap();
            let variants = whole.features().iter().map(|f| {
                let text = format!("{name},-{}", f.name());
                CpuModel::from_name(&text).unwrap()
            });
            for model in std::iter::once(whole).chain(variants) {
                let [_, _, c, d] = model.cpuid(1, 0);
                let [_, b7, c7, d7] = model.cpuid(7, 0);
                let [_, _, ec, ed] = model.cpuid(0x8000_0001, 0);
                let [a13, ..] = model.cpuid(13, 1);
                let has_xsave = model.features().has(Features::XSAVE);
                assert_eq!(c >> 27 & 1 != 0, has_xsave, "OSXSAVE");
                let mut left = [c & !(1 << 27), d, b7, c7, a13, ec, ed];
                for &feature in Feature::ALL {
                    let (word, bit) = feature.cpuid();
                    let place = &mut left[word as usize];
                    let shown = *place >> bit & 1 != 0;
                    assert_eq!(shown, model.features().offers(feature), "{feature:?}");
                    *place &= !(1 << bit);
                }
                assert_eq!((left, d7), ([0; 7], 0));
            }
        }
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
