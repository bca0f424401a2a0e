//! What a synthetic file is made from. Owns the choice of storage types (GGUF spec section 4); the lists of
//! tensors and the numbers of a shape are `ds4-model`'s.

use ds4_gguf::DType;
use ds4_model::{Class, Shape, TensorSpec, draft_specs, tensor_specs};

use crate::vocabulary::Tokens;

/// One file: the same recipe gives the same bytes on every machine and for any number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Every dimension. `n_vocab` must be [`Tokens::count`].
    pub shape: Shape,
    /// Storage types.
    pub quant: Quant,
    /// Which random weights.
    pub seed: u64,
    /// Which tokenizer goes into the file.
    pub tokens: Tokens,
    /// The draft-block support file of this shape (GGUF spec section 5) instead of the main file.
    pub mtp: bool,
}

/// Storage types of the routed experts; all else is as in the published files, except in `F16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// IQ2_XXS gate and up, Q2_K down.
    Q2,
    /// Q4_K.
    Q4,
    /// MXFP4.
    Mxfp4,
    /// F16, and every other matrix F16 too.
    F16,
}

impl Recipe {
    /// This shape with the whole tokenizer, two-bit experts and seed 0.
    pub fn new(shape: Shape) -> Self {
        Self { shape, quant: Quant::Q2, seed: 0, tokens: Tokens::Full, mtp: false }
    }

    /// Other storage types.
    #[must_use]
    pub fn quant(mut self, quant: Quant) -> Self {
        self.quant = quant;
        self
    }

    /// Other random weights.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The support file instead of the main file.
    #[must_use]
    pub fn mtp(mut self) -> Self {
        self.mtp = true;
        self
    }

    /// Another tokenizer; the shape's vocabulary follows it.
    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self.shape.n_vocab = tokens.count();
        self
    }

    /// More or fewer layers: the first ones stay, further ones continue the alternation of the last two.
    #[must_use]
    pub fn layers(mut self, n: usize) -> Self {
        let s = &mut self.shape;
        s.n_layer = n;
        s.n_hash_layer = s.n_hash_layer.min(n);
        s.ratios.truncate(n);
        s.swiglu_clamp.truncate(n);
        while s.ratios.len() < n {
            let before = s.ratios.len().checked_sub(2).map_or(0, |i| s.ratios[i]);
            s.ratios.push(before);
        }
        s.swiglu_clamp.resize(n, s.swiglu_clamp.last().copied().unwrap_or(10.0));
        self
    }

    /// More or fewer experts; a token uses no more than there are.
    #[must_use]
    pub fn experts(mut self, n: usize) -> Self {
        self.shape.n_expert = n;
        self.shape.n_expert_used = self.shape.n_expert_used.min(n);
        self
    }

    /// The file's tensors with their types, in file order.
    pub(crate) fn tensors(&self) -> Vec<(TensorSpec, DType)> {
        let specs = if self.mtp { draft_specs(&self.shape) } else { tensor_specs(&self.shape) };
        let dtype = |class| if self.mtp { mtp_dtype(class) } else { self.quant.dtype(class) };
        specs.into_iter().map(|spec| (dtype(spec.class), spec)).map(|(dtype, spec)| (spec, dtype)).collect()
    }
}

impl Quant {
    /// Every recipe, smallest experts first.
    pub const ALL: [Self; 4] = [Self::Q2, Self::Mxfp4, Self::Q4, Self::F16];

    /// `q2`, `mxfp4`, `q4` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q2 => "q2",
            Self::Q4 => "q4",
            Self::Mxfp4 => "mxfp4",
            Self::F16 => "f16",
        }
    }

    /// The recipe of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|q| q.name() == name)
    }

    /// `general.file_type`, as conversion tools number them.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4 => 15,
            Self::Q2 => 19,
            Self::Mxfp4 => 38,
        }
    }

    fn dtype(self, class: Class) -> DType {
        match class {
            Class::Norm | Class::HcScale | Class::HcBase | Class::Sinks | Class::RouterBias => DType::F32,
            Class::Embedding
            | Class::HcFn
            | Class::Compressor
            | Class::CompressorApe
            | Class::Indexer
            | Class::Router => DType::F16,
            Class::HashTable => DType::I32,
            Class::Output | Class::AttnProj | Class::Shared if self == Self::F16 => DType::F16,
            Class::Output | Class::AttnProj | Class::Shared => DType::Q8_0,
            Class::ExpertGateUp | Class::ExpertDown => match self {
                Self::Q2 if class == Class::ExpertDown => DType::Q2K,
                Self::Q2 => DType::Iq2Xxs,
                Self::Q4 => DType::Q4K,
                Self::Mxfp4 => DType::Mxfp4,
                Self::F16 => DType::F16,
            },
        }
    }
}

/// The published support file has one recipe.
fn mtp_dtype(class: Class) -> DType {
    match class {
        Class::AttnProj | Class::Shared => DType::Q8_0,
        Class::ExpertGateUp | Class::ExpertDown => DType::Q4K,
        _ => DType::F32,
    }
}
