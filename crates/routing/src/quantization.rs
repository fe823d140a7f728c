//! Numeric precision an endpoint serves a model in.

use serde::{Deserialize, Serialize};

/// Precision of the weights, as the provider states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 4-bit integers.
    Int4,
    /// 8-bit integers.
    Int8,
    /// 4-bit floats.
    Fp4,
    /// 4-bit floats with microscaling.
    Mxfp4,
    /// 4-bit floats, NVIDIA's block format.
    Nvfp4,
    /// 6-bit floats.
    Fp6,
    /// 8-bit floats.
    Fp8,
    /// 8-bit floats with microscaling.
    Mxfp8,
    /// IEEE half precision.
    Fp16,
    /// bfloat16.
    Bf16,
    /// Single precision.
    Fp32,
    /// Not stated.
    #[default]
    Unknown,
}

impl Quantization {
    /// By wire name.
    pub fn from_name(name: &str) -> Option<Quantization> {
        ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Quantization::Int4 => "int4",
            Quantization::Int8 => "int8",
            Quantization::Fp4 => "fp4",
            Quantization::Mxfp4 => "mxfp4",
            Quantization::Nvfp4 => "nvfp4",
            Quantization::Fp6 => "fp6",
            Quantization::Fp8 => "fp8",
            Quantization::Mxfp8 => "mxfp8",
            Quantization::Fp16 => "fp16",
            Quantization::Bf16 => "bf16",
            Quantization::Fp32 => "fp32",
            Quantization::Unknown => "unknown",
        }
    }
}

/// The precisions a caller accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizationSet(u16);

impl QuantizationSet {
    /// Adds what a caller's word stands for: `fp4` also means its block formats, `fp8` also `mxfp8`.
    pub fn admit(&mut self, asked: Quantization) {
        self.0 |= 1 << asked as u16;
        match asked {
            Quantization::Fp4 => self.0 |= 1 << Quantization::Mxfp4 as u16 | 1 << Quantization::Nvfp4 as u16,
            Quantization::Fp8 => self.0 |= 1 << Quantization::Mxfp8 as u16,
            Quantization::Int4
            | Quantization::Int8
            | Quantization::Mxfp4
            | Quantization::Nvfp4
            | Quantization::Fp6
            | Quantization::Mxfp8
            | Quantization::Fp16
            | Quantization::Bf16
            | Quantization::Fp32
            | Quantization::Unknown => {}
        }
    }

    /// Whether an endpoint of this precision is accepted.
    pub fn matches(self, served: Quantization) -> bool {
        self.0 & (1 << served as u16) != 0
    }

    /// What both accept.
    pub fn intersection(self, other: QuantizationSet) -> QuantizationSet {
        QuantizationSet(self.0 & other.0)
    }
}

impl FromIterator<Quantization> for QuantizationSet {
    fn from_iter<I: IntoIterator<Item = Quantization>>(asked: I) -> Self {
        let mut set = QuantizationSet::default();
        asked.into_iter().for_each(|one| set.admit(one));
        set
    }
}

pub(crate) const ALL: [Quantization; 12] = [
    Quantization::Int4,
    Quantization::Int8,
    Quantization::Fp4,
    Quantization::Mxfp4,
    Quantization::Nvfp4,
    Quantization::Fp6,
    Quantization::Fp8,
    Quantization::Mxfp8,
    Quantization::Fp16,
    Quantization::Bf16,
    Quantization::Fp32,
    Quantization::Unknown,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_include_their_block_formats_and_nothing_else() {
        let fp8: QuantizationSet = [Quantization::Fp8].into_iter().collect();
        let accepted: Vec<_> = ALL.into_iter().filter(|one| fp8.matches(*one)).collect();
        assert_eq!(accepted, [Quantization::Fp8, Quantization::Mxfp8]);
        let fp4: QuantizationSet = [Quantization::Fp4].into_iter().collect();
        let accepted: Vec<_> = ALL.into_iter().filter(|one| fp4.matches(*one)).collect();
        assert_eq!(accepted, [Quantization::Fp4, Quantization::Mxfp4, Quantization::Nvfp4]);
        let mx: QuantizationSet = [Quantization::Mxfp4].into_iter().collect();
        assert!(!mx.matches(Quantization::Fp4));
    }

    #[test]
    fn names_round_trip() {
        for one in ALL {
            assert_eq!(Quantization::from_name(one.as_str()), Some(one));
        }
    }
}
