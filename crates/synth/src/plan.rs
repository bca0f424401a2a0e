//! A recipe turned into a layout and the pieces to draw. Owns the file's metadata and the checks; writes nothing.

use ds4_gguf::{DEFAULT_ALIGNMENT, DType, Gguf, Layout, OwnedValue};
use ds4_model::Shape;

use crate::{
    error::{Error, Result},
    fill::Fill,
    recipe::Recipe,
    rng::{Rng, key},
    values::Values,
};

/// Everything needed to draw the file, in any order.
pub(crate) struct Plan {
    pub(crate) pieces: Vec<Piece>,
    seed: u64,
    tensors: Vec<Source>,
}

struct Source {
    key: u64,
    fill: Fill,
}

/// A run of bytes that one generator draws.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    tensor: usize,
    index: u64,
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

impl Recipe {
    /// Where everything of the file lies. Draws nothing.
    pub fn layout(&self) -> Result<Layout> {
        check(self)?;
        let metadata = if self.mtp { mtp_metadata(&self.shape) } else { metadata(self) };
        let tensors = self.tensors().into_iter().map(|(spec, dtype)| (spec.name, dtype, spec.dims)).collect();
        Ok(Layout::new(metadata, tensors, DEFAULT_ALIGNMENT)?)
    }
}

impl Plan {
    /// `layout` is the recipe's. There are as many pieces as megabytes, so callers first see that the file has room.
    pub(crate) fn new(recipe: &Recipe, layout: &Layout) -> Self {
        let mut pieces = Vec::new();
        let mut tensors = Vec::with_capacity(layout.len());
        for (i, (spec, dtype)) in recipe.tensors().into_iter().enumerate() {
            let fill = Fill::new(dtype, &spec.dims, Values::of(&spec, &recipe.shape));
            cut(i, &fill, dtype, layout, &mut pieces);
            tensors.push(Source { key: key(&spec.name), fill });
        }
        Self { pieces, seed: recipe.seed, tensors }
    }

    /// Draws a piece into a buffer of its length.
    pub(crate) fn draw(&self, piece: &Piece, out: &mut [u8]) {
        let source = &self.tensors[piece.tensor];
        source.fill.draw(&mut Rng::new(self.seed, source.key, piece.index), out);
    }
}

fn cut(tensor: usize, fill: &Fill, dtype: DType, layout: &Layout, pieces: &mut Vec<Piece>) {
    let (start, bytes) = (layout.offset(tensor), layout.tensor_bytes(tensor));
    let most = fill.piece(dtype) as u64;
    for index in 0..bytes.div_ceil(most) {
        let at = index * most;
        pieces.push(Piece { tensor, index, offset: start + at, len: most.min(bytes - at) as usize });
    }
}

/// A file that the engine would refuse is not written: its own reader judges the shape.
fn check(recipe: &Recipe) -> Result<()> {
    let shape = &recipe.shape;
    let wrong = |what, found: usize, expected: String| Err(Error::Recipe { what, found: found.to_string(), expected });
    if shape.n_vocab != recipe.tokens.count() {
        return wrong("vocabulary", shape.n_vocab, format!("the tokenizer's {}", recipe.tokens.count()));
    }
    for (what, found) in [("ratios", shape.ratios.len()), ("clamps", shape.swiglu_clamp.len())] {
        if found != shape.n_layer {
            return wrong(what, found, format!("one per layer, {}", shape.n_layer));
        }
    }
    let bare = Layout::new(general(shape, recipe.quant.file_type()), Vec::new(), DEFAULT_ALIGNMENT)?;
    let file = Gguf::from_bytes("recipe", bare.header().to_vec().into())?;
    Shape::from_metadata(file.metadata())?;
    Ok(())
}

fn metadata(recipe: &Recipe) -> Vec<(String, OwnedValue)> {
    let mut records = general(&recipe.shape, recipe.quant.file_type());
    records.extend(recipe.tokens.metadata());
    records
}

/// What stands before the tokenizer in the published files (GGUF spec section 2).
fn general(shape: &Shape, file_type: u32) -> Vec<(String, OwnedValue)> {
    let mut records: Vec<(String, OwnedValue)> = vec![
        ("general.architecture".to_owned(), "deepseek4".into()),
        ("general.name".to_owned(), shape.name.as_str().into()),
        ("general.license".to_owned(), "mit".into()),
        ("general.file_type".to_owned(), file_type.into()),
        ("general.quantization_version".to_owned(), 2_u32.into()),
    ];
    if *shape == Shape::flash() {
        records.insert(2, ("general.size_label".to_owned(), "256x8.4B".into()));
    }
    records.extend(shape.metadata());
    records
}

/// GGUF spec section 5.
fn mtp_metadata(shape: &Shape) -> Vec<(String, OwnedValue)> {
    vec![
        ("general.architecture".to_owned(), "deepseek4_mtp_support".into()),
        ("general.name".to_owned(), format!("{} MTP support", shape.name).into()),
        ("deepseek4.mtp_layer_count".to_owned(), 1_u32.into()),
        ("deepseek4.nextn_predict_layers".to_owned(), 1_u32.into()),
        ("deepseek4.expert_count".to_owned(), (shape.n_expert as u32).into()),
    ]
}
