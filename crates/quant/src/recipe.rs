//! Which type each tensor gets. Owns the targets, the families and their precedence (gguf.md section 10): a name prefix before
//! a family before the target.

use ds4_gguf::DType;
use ds4_model::{Class, TensorSpec};

use crate::error::{Error, Result};

/// What the file is for: the type of the routed experts; in `F16`, of every matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every matrix F16.
    F16,
    /// Experts Q8_0.
    Q8,
    /// Experts Q4_K.
    Q4,
    /// Gate and up experts IQ2_XXS, down Q2_K.
    Q2,
    /// Experts MXFP4: nothing is lost of FP4 sources.
    Mxfp4,
}

/// Matrices that get their type together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Token embedding.
    Embedding,
    /// Vocabulary projection.
    Output,
    /// Attention projections.
    Attention,
    /// Shared expert.
    Shared,
    /// Attention compressors.
    Compressor,
    /// Indexer with its compressor.
    Indexer,
    /// Router projection.
    Router,
    /// Hyper-connection projections.
    Hc,
    /// Routed gate and up experts.
    GateUp,
    /// Routed down experts.
    Down,
}

/// Types of a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Where families start from.
    pub target: Target,
    /// Families that differ; the last word on a family counts.
    pub families: Vec<(Family, DType)>,
    /// Matrices whose GGUF name begins so; the last word on a tensor counts.
    pub prefixes: Vec<(String, DType)>,
}

impl Target {
    /// Every target, largest file first.
    pub const ALL: [Self; 5] = [Self::F16, Self::Q8, Self::Q4, Self::Mxfp4, Self::Q2];

    /// `f16`, `q8`, `q4`, `mxfp4` or `q2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
            Self::Q2 => "q2",
            Self::Mxfp4 => "mxfp4",
        }
    }

    /// The target of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// `general.file_type`, as conversion tools number them.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8 => 7,
            Self::Q4 => 15,
            Self::Q2 => 19,
            Self::Mxfp4 => 38,
        }
    }

    fn experts(self, family: Family) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Q8 => DType::Q8_0,
            Self::Q4 => DType::Q4K,
            Self::Q2 if family == Family::Down => DType::Q2K,
            Self::Q2 => DType::Iq2Xxs,
            Self::Mxfp4 => DType::Mxfp4,
        }
    }
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 10] = [
        Self::Embedding,
        Self::Output,
        Self::Attention,
        Self::Shared,
        Self::Compressor,
        Self::Indexer,
        Self::Router,
        Self::Hc,
        Self::GateUp,
        Self::Down,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Output => "output",
            Self::Attention => "attention",
            Self::Shared => "shared",
            Self::Compressor => "compressor",
            Self::Indexer => "indexer",
            Self::Router => "router",
            Self::Hc => "hc",
            Self::GateUp => "gate-up",
            Self::Down => "down",
        }
    }

    /// The family of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// `None` for what is no matrix and keeps its type: norms, scales, bases, sinks, biases, position biases, tables.
    pub(crate) fn of(class: Class) -> Option<Self> {
        Some(match class {
            Class::Embedding => Self::Embedding,
            Class::Output => Self::Output,
            Class::AttnProj => Self::Attention,
            Class::Shared => Self::Shared,
            Class::Compressor => Self::Compressor,
            Class::Indexer => Self::Indexer,
            Class::Router => Self::Router,
            Class::HcFn => Self::Hc,
            Class::ExpertGateUp => Self::GateUp,
            Class::ExpertDown => Self::Down,
            Class::Norm
            | Class::HcScale
            | Class::HcBase
            | Class::Sinks
            | Class::RouterBias
            | Class::CompressorApe
            | Class::HashTable => return None,
        })
    }
}

impl Recipe {
    /// A target without exceptions.
    pub fn new(target: Target) -> Self {
        Self { target, families: Vec::new(), prefixes: Vec::new() }
    }

    /// The type of a tensor of the main file, or of the draft block's. Errors: rows that are not whole blocks of it.
    pub(crate) fn dtype(&self, spec: &TensorSpec, mtp: bool) -> Result<DType> {
        let dtype = match Family::of(spec.class) {
            None => fixed(spec.class),
            Some(family) => {
                let prefix = self.prefixes.iter().rev().find(|(prefix, _)| spec.name.starts_with(prefix));
                let own = self.families.iter().rev().find(|(f, _)| *f == family).map(|&(_, t)| t);
                let chosen = prefix.map(|&(_, t)| t).or(own);
                chosen.unwrap_or_else(|| self.published(family, mtp))
            }
        };
        if dtype.row_bytes(spec.dims[0] as usize).is_none() {
            let found = format!("rows of {}", spec.dims[0]);
            let expected = format!("a multiple of {} for {dtype}", dtype.block_len());
            return Err(Error::Recipe { tensor: spec.name.clone(), found, expected });
        }
        Ok(dtype)
    }

    /// The type in the published file of this target.
    fn published(&self, family: Family, mtp: bool) -> DType {
        match family {
            Family::GateUp | Family::Down => self.target.experts(family),
            Family::Output | Family::Attention | Family::Shared if self.target == Target::F16 => DType::F16,
            Family::Output | Family::Attention | Family::Shared => DType::Q8_0,
            Family::Embedding | Family::Compressor | Family::Indexer => DType::F16,
            Family::Router | Family::Hc => {
                if mtp {
                    DType::F32
                } else {
                    DType::F16
                }
            }
        }
    }
}

fn fixed(class: Class) -> DType {
    match class {
        Class::HashTable => DType::I32,
        Class::CompressorApe => DType::F16,
        _ => DType::F32,
    }
}

/// A type by its usual name, in any case: `q4_k`, `IQ2_XXS`. Only types of numbers.
pub fn dtype_from_name(name: &str) -> Option<DType> {
    DType::ALL.into_iter().filter(|&t| t != DType::I32).find(|t| t.name().eq_ignore_ascii_case(name))
}
