//! A checkpoint and a recipe joined: every tensor with its type and source, checked before a byte is written. Owns the
//! file's records and the pieces of the work.

use std::path::{Path, PathBuf};

use ds4_gguf::{DEFAULT_ALIGNMENT, DType, Layout, OwnedValue};
use ds4_model::{Class, Shape, TensorSpec, draft_specs, tensor_specs};

use crate::{
    blocks,
    config::Config,
    error::{Error, Result, shown},
    imatrix::Imatrix,
    names::{SourceName, source_of},
    recipe::{Family, Recipe},
    source::{Checkpoint, Entry, Matrix, SourceType, missing},
    tokenizer,
};

/// Elements that one piece of a large matrix has at most, unless a row has more.
const PIECE: u64 = 1 << 22;

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Types.
    pub recipe: Recipe,
    /// The draft block's file instead of the main file.
    pub mtp: bool,
    /// `general.name`, if not the released model's or the folder's.
    pub name: Option<String>,
    /// Importance of columns.
    pub imatrix: Option<PathBuf>,
    /// A tensor that could use the imatrix and has no entry is an error.
    pub strict: bool,
}

/// A file to be written. Nothing of the weights has been read.
pub struct Plan {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tensors: Vec<Planned>,
    pub(crate) layout: Layout,
    pub(crate) pieces: Vec<Piece>,
    imatrix: Option<Imatrix>,
    strict: bool,
    n_expert: usize,
}

/// One tensor of the file.
pub(crate) struct Planned {
    pub(crate) spec: TensorSpec,
    pub(crate) dtype: DType,
    pub(crate) source: Source,
    name: SourceName,
}

/// Where a tensor's values come from.
pub(crate) enum Source {
    /// One matrix, or one per expert.
    Matrices(Vec<Matrix>),
    /// Expert ids.
    Table(Entry),
}

/// Rows of one matrix that one thread converts; what the journal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) tensor: usize,
    /// The expert; 0 in a tensor of one matrix.
    pub(crate) matrix: usize,
    pub(crate) first: u64,
    pub(crate) rows: u64,
}

/// One line of a plan's summary: the tensors of a family (or of none) in one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `attention`, `gate-up`; `other` for what is no matrix.
    pub family: &'static str,
    /// Storage type.
    pub dtype: DType,
    /// Number of tensors.
    pub tensors: usize,
    /// Their bytes without padding.
    pub bytes: u64,
}

impl Plan {
    /// Reads the checkpoint's headers and configuration, and checks that it has all that the file needs.
    pub fn new(folder: &Path, options: &Options) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = Config::read(folder, options.name.as_deref())?;
        let imatrix = options.imatrix.as_deref().map(Imatrix::open).transpose()?;
        let specs = if options.mtp { draft_specs(&config.shape) } else { tensor_specs(&config.shape) };
        check_prefixes(&options.recipe, &specs)?;
        let tensors: Vec<Planned> = specs
            .into_iter()
            .map(|spec| {
                let dtype = options.recipe.dtype(&spec, options.mtp)?;
                planned(&checkpoint, spec, dtype)
            })
            .collect::<Result<_>>()?;
        check_pairs(&tensors)?;
        let mut records = records(folder, &config, options)?;
        records.extend(imatrix.iter().flat_map(imatrix_records));
        let places = tensors.iter().map(|t| (t.spec.name.clone(), t.dtype, t.spec.dims)).collect();
        let layout = Layout::new(records, places, DEFAULT_ALIGNMENT)?;
        let mut plan = Self {
            checkpoint,
            tensors,
            layout,
            pieces: Vec::new(),
            imatrix,
            strict: options.strict,
            n_expert: config.shape.n_expert,
        };
        plan.check_importance()?;
        plan.pieces = (0..plan.tensors.len()).flat_map(|i| plan.cut(i)).collect();
        Ok(plan)
    }

    /// One tensor alone, in a given type: for comparisons with a file that has it.
    pub(crate) fn single(folder: &Path, tensor: &str, dtype: DType, imatrix: Option<&Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let shape = Config::read(folder, None)?.shape;
        let mut specs = tensor_specs(&shape).into_iter().chain(draft_specs(&shape));
        let spec = specs.find(|spec| spec.name == tensor).ok_or_else(|| Error::Recipe {
            tensor: tensor.to_owned(),
            found: "no such tensor".to_owned(),
            expected: "one of a model of this shape".to_owned(),
        })?;
        if dtype.row_bytes(spec.dims[0] as usize).is_none() || (dtype == DType::I32) != (spec.class == Class::HashTable)
        {
            let expected = "a type that this tensor can have".to_owned();
            return Err(Error::Recipe { tensor: spec.name, found: dtype.to_string(), expected });
        }
        let tensors = vec![planned(&checkpoint, spec, dtype)?];
        let places = tensors.iter().map(|t| (t.spec.name.clone(), t.dtype, t.spec.dims)).collect();
        let layout = Layout::new(Vec::new(), places, DEFAULT_ALIGNMENT)?;
        let imatrix = imatrix.map(Imatrix::open).transpose()?;
        let n_expert = shape.n_expert;
        let mut plan = Self { checkpoint, tensors, layout, pieces: Vec::new(), imatrix, strict: false, n_expert };
        plan.pieces = plan.cut(0);
        Ok(plan)
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.layout.file_len()
    }

    /// Tensors and bytes per family and type, in the order of the file.
    pub fn summary(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for (i, tensor) in self.tensors.iter().enumerate() {
            let family = Family::of(tensor.spec.class).map_or("other", Family::name);
            let (dtype, bytes) = (tensor.dtype, self.layout.tensor_bytes(i));
            match lines.iter_mut().find(|line| line.family == family && line.dtype == dtype) {
                Some(line) => (line.tensors, line.bytes) = (line.tensors + 1, line.bytes + bytes),
                None => lines.push(Line { family, dtype, tensors: 1, bytes }),
            }
        }
        lines
    }

    /// Number of experts: ids of the hash tables lie below.
    pub(crate) fn n_expert(&self) -> usize {
        self.n_expert
    }

    /// The imatrix's columns for one matrix, if its type uses them and there are any.
    pub(crate) fn importance(&self, tensor: usize, matrix: usize) -> Result<Option<Vec<f32>>> {
        let planned = &self.tensors[tensor];
        let (Some(imatrix), true) = (&self.imatrix, blocks::uses_importance(planned.dtype)) else { return Ok(None) };
        let expert = match &planned.source {
            Source::Matrices(matrices) if matches!(planned.name, SourceName::PerExpert { .. }) => {
                Some((matrix, matrices.len()))
            }
            _ => None,
        };
        let names = [planned.spec.name.clone(), planned.name.matrix(matrix)];
        imatrix.columns(&names, planned.spec.dims[0] as usize, expert)
    }

    /// What tells this work from any other: records, types, places, sources.
    pub(crate) fn identity(&self) -> Vec<&[u8]> {
        let sources = self.checkpoint.shards().iter().map(|shard| shard.identity.as_bytes());
        let imatrix = self.imatrix.iter().map(|imatrix| imatrix.identity.as_bytes());
        [self.layout.header()].into_iter().chain(sources).chain(imatrix).collect()
    }

    /// Whether the synthetic importance of a tensor's matrices has to be summed over all their rows first.
    pub(crate) fn is_synthetic(&self, tensor: usize, matrix: usize) -> Result<bool> {
        Ok(blocks::needs_importance(self.tensors[tensor].dtype) && self.importance(tensor, matrix)?.is_none())
    }

    /// Every entry that will be used is there (in strict mode) and has the right length.
    fn check_importance(&self) -> Result<()> {
        for (i, tensor) in self.tensors.iter().enumerate() {
            let Source::Matrices(matrices) = &tensor.source else { continue };
            if !blocks::uses_importance(tensor.dtype) || self.imatrix.is_none() {
                continue;
            }
            for matrix in 0..matrices.len() {
                if self.importance(i, matrix)?.is_none() && self.strict {
                    let found = format!("no imatrix entry for {}", tensor.name.matrix(matrix));
                    let expected = "one in strict mode".to_owned();
                    return Err(Error::Recipe { tensor: tensor.spec.name.clone(), found, expected });
                }
            }
        }
        Ok(())
    }

    /// The pieces of a tensor. Matrices whose importance is summed first stay whole.
    fn cut(&self, tensor: usize) -> Vec<Piece> {
        let planned = &self.tensors[tensor];
        let (n, rows, columns) = match &planned.source {
            Source::Matrices(matrices) => (matrices.len(), matrices[0].rows, matrices[0].columns),
            Source::Table(table) => (1, table.shape[0], table.shape[1]),
        };
        let whole = blocks::needs_importance(planned.dtype);
        let most = if whole { rows } else { (PIECE / columns).clamp(1, rows) };
        let starts = move || (0..rows).step_by(most as usize);
        (0..n)
            .flat_map(|matrix| starts().map(move |first| Piece { tensor, matrix, first, rows: most.min(rows - first) }))
            .collect()
    }
}

/// Finds the source of one tensor and checks its shape and type.
fn planned(from: &Checkpoint, spec: TensorSpec, dtype: DType) -> Result<Planned> {
    let name = source_of(&spec.name).expect("every tensor of the model has a source, as the tests show");
    let dims: Vec<u64> = spec.dims.iter().rev().copied().collect();
    let source = match (&name, spec.class) {
        (SourceName::One(name), Class::HashTable) => Source::Table(table(from, name, &dims)?),
        (SourceName::One(name), _) => Source::Matrices(vec![Matrix::find(from, name, &dims)?]),
        (SourceName::PerExpert { .. }, _) => {
            let find = |e: u64| Matrix::find(from, &name.matrix(e as usize), &dims[1..]);
            Source::Matrices((0..dims[0]).map(find).collect::<Result<_>>()?)
        }
    };
    Ok(Planned { spec, dtype, source, name })
}

fn table(from: &Checkpoint, name: &str, shape: &[u64]) -> Result<Entry> {
    let entry = from.find(name).ok_or_else(|| missing(from, name, format!("{shape:?} of I64")))?;
    if !matches!(entry.dtype, SourceType::I64 | SourceType::I32) || entry.shape != shape {
        let found = format!("{:?} {}", entry.shape, entry.dtype);
        return Err(Error::invalid(
            from.file_of(&entry),
            format!("tensor {name}"),
            found,
            format!("{shape:?} I64 or I32"),
        ));
    }
    Ok(entry)
}

/// A prefix that names nothing is a mistake, not an exception.
fn check_prefixes(recipe: &Recipe, specs: &[TensorSpec]) -> Result<()> {
    for (prefix, dtype) in &recipe.prefixes {
        if !specs.iter().any(|spec| Family::of(spec.class).is_some() && spec.name.starts_with(prefix)) {
            let expected = "the beginning of a matrix's name".to_owned();
            return Err(Error::Recipe { tensor: prefix.clone(), found: format!("nothing to be {dtype}"), expected });
        }
    }
    Ok(())
}

/// Loaders want gate and up of a layer in one type.
fn check_pairs(tensors: &[Planned]) -> Result<()> {
    let experts: Vec<&Planned> = tensors.iter().filter(|t| t.spec.class == Class::ExpertGateUp).collect();
    for pair in experts.chunks(2) {
        if let [gate, up] = pair
            && gate.dtype != up.dtype
        {
            let expected = format!("{} as {}", gate.dtype, gate.spec.name);
            return Err(Error::Recipe { tensor: up.spec.name.clone(), found: up.dtype.to_string(), expected });
        }
    }
    Ok(())
}

fn records(folder: &Path, config: &Config, options: &Options) -> Result<Vec<(String, OwnedValue)>> {
    let name = &config.shape.name;
    if options.mtp {
        if config.drafts == 0 {
            let file = shown(&folder.join("config.json"));
            return Err(Error::invalid(file, "key num_nextn_predict_layers", "no draft block", "1 for a support file"));
        }
        return Ok(vec![
            ("general.architecture".to_owned(), "deepseek4_mtp_support".into()),
            ("general.name".to_owned(), format!("{name} MTP support").into()),
            ("deepseek4.mtp_layer_count".to_owned(), 1_u32.into()),
            ("deepseek4.nextn_predict_layers".to_owned(), 1_u32.into()),
            ("deepseek4.expert_count".to_owned(), (config.shape.n_expert as u32).into()),
        ]);
    }
    let mut records: Vec<(String, OwnedValue)> = vec![
        ("general.architecture".to_owned(), "deepseek4".into()),
        ("general.name".to_owned(), name.as_str().into()),
    ];
    if config.shape == (Shape { name: name.clone(), ..Shape::flash() }) {
        records.push(("general.size_label".to_owned(), "256x8.4B".into()));
    }
    records.push(("general.license".to_owned(), "mit".into()));
    records.push(("general.file_type".to_owned(), options.recipe.target.file_type().into()));
    records.push(("general.quantization_version".to_owned(), 2_u32.into()));
    records.extend(config.metadata());
    records.extend(tokenizer::metadata(folder, config)?);
    Ok(records)
}

/// gguf.md section 10. The file's name goes in without its folders, which are nobody else's business.
fn imatrix_records(imatrix: &Imatrix) -> Vec<(String, OwnedValue)> {
    let mut records: Vec<(String, OwnedValue)> = vec![
        ("quantize.imatrix.file".to_owned(), imatrix.file_name().into()),
        ("quantize.imatrix.entries_count".to_owned(), OwnedValue::U64(imatrix.len() as u64)),
    ];
    records.extend(imatrix.dataset.iter().map(|name| ("quantize.imatrix.dataset".to_owned(), name.as_str().into())));
    records.extend(imatrix.chunks.iter().map(|&n| ("quantize.imatrix.chunks_count".to_owned(), OwnedValue::U64(n))));
    records
}
