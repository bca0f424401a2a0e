//! The model text: the order of operations, written once for every device, batch size and phase. Decode is prefill with
//! one row.

use std::io::{Read, Write};
use std::ops::Range;

use ds4_gguf::{DType, Gguf};
use sha2::{Digest, Sha256};

use crate::weights::{check_hash_table, find, validate};
use crate::workspace::MAX_LOGIT_ROWS;
use crate::{
    Backend, Batch, Best, Cache, Class, DraftKv, DraftRow, DraftWeights, Error, GraphKey, KvLayout, LayerKv,
    LayerWeights, Limits, LogitRows, MAX_DRAFT, MemoryPlan, Model, NO_LOGITS, Numerics, Part, Result, Shape, SlotId,
    Span, StepRow, Variant, Weights, Workspace, validate_draft,
};

/// A model on one device.
pub struct Transformer<B: Backend> {
    shape: Shape,
    limits: Limits,
    layout: KvLayout,
    fingerprint: [u8; 32],
    variant: Variant,
    backend: B,
    weights: Weights<B::Weight>,
    draft: Option<DraftWeights<B::Weight>>,
    cache: Cache<B::Buffer>,
    workspace: Workspace<B::Buffer>,
    rows: Vec<StepRow>,
    prime: Vec<StepRow>,
}

/// Where the wanted rows of a batch go, in span order: with all their logits, or with the best of each.
enum Outputs<'a> {
    /// `[wanted][n_vocab]`
    Logits(&'a mut [f32]),
    /// `[wanted]`
    Best(&'a mut [Best]),
}

impl<'a> Outputs<'a> {
    /// Takes off the places of the next `rows` rows, which were checked to be there.
    fn split_off(&mut self, rows: usize, n_vocab: usize) -> Outputs<'a> {
        let checked = "checked: room for every row";
        match self {
            Outputs::Logits(left) => Outputs::Logits(left.split_off_mut(..rows * n_vocab).expect(checked)),
            Outputs::Best(left) => Outputs::Best(left.split_off_mut(..rows).expect(checked)),
        }
    }
}

/// All layers of one step, then what a draft block takes from it.
fn forward<B: Backend>(
    b: &mut B,
    w: &Weights<B::Weight>,
    draft: Option<&DraftWeights<B::Weight>>,
    cache: &mut Cache<B::Buffer>,
    ws: &mut Workspace<B::Buffer>,
) -> Result<()> {
    b.embed(&ws.step, &w.token_embd, &mut ws.streams)?;
    for (layer, kv) in w.layers.iter().zip(&mut cache.layers) {
        attention(b, layer, kv, ws)?;
        feed_forward(b, layer, ws)?;
    }
    b.head(&ws.step, &w.head, &w.output, &ws.streams, &mut ws.logits)?;
    match (draft, &mut cache.draft) {
        (Some(draft), Some(kv)) => prime(b, draft, &w.token_embd, kv, ws),
        _ => Ok(()),
    }
}

/// Keeps the states of the step and adds to the draft block's window the rows whose next token the step has made known: a
/// row of that block depends on nothing but its state and its token.
fn prime<B: Backend>(
    b: &mut B,
    w: &DraftWeights<B::Weight>,
    table: &B::Weight,
    kv: &mut DraftKv<B::Buffer>,
    ws: &mut Workspace<B::Buffer>,
) -> Result<()> {
    let Workspace { step, streams, x, mix, low, prime, .. } = ws;
    b.keep_streams(step, streams, &mut kv.hidden)?;
    let Some(step) = prime.as_ref().filter(|step| step.n > 0) else { return Ok(()) };
    b.draft_embed(step, &w.embed, table, &kv.hidden, streams)?;
    b.hc_pre(step, &w.layer.hc_attn, streams, x, mix)?;
    b.project(step, &w.layer.project, x, low, &mut kv.layer.window)
}

/// One step of the draft block.
fn draft<B: Backend>(
    b: &mut B,
    w: &DraftWeights<B::Weight>,
    main: &Weights<B::Weight>,
    kv: &mut DraftKv<B::Buffer>,
    ws: &mut Workspace<B::Buffer>,
) -> Result<()> {
    b.draft_embed(&ws.step, &w.embed, &main.token_embd, &kv.hidden, &mut ws.streams)?;
    attention(b, &w.layer, &mut kv.layer, ws)?;
    feed_forward(b, &w.layer, ws)?;
    b.keep_streams(&ws.step, &ws.streams, &mut kv.hidden)?;
    b.head(&ws.step, &w.head, &main.output, &ws.streams, &mut ws.logits)
}

fn attention<B: Backend>(
    b: &mut B,
    w: &LayerWeights<B::Weight>,
    kv: &mut LayerKv<B::Buffer>,
    ws: &mut Workspace<B::Buffer>,
) -> Result<()> {
    let Workspace { step, streams, x, mix, low, q, selected, heads, .. } = ws;
    b.hc_pre(step, &w.hc_attn, streams, x, mix)?;
    b.project(step, &w.project, x, low, &mut kv.window)?;
    b.query(step, &w.query, low, q)?;
    if let (Some(w), Some(rows)) = (&w.compressor, &mut kv.compressed) {
        b.compress(step, w, low, rows)?;
        if rows.index.is_some() {
            b.select(step, low, q, rows, selected)?;
        }
    }
    b.attend(step, &w.attn_sinks, q, kv, selected, heads)?;
    b.attn_output(step, &w.attn_output, heads, mix, streams)
}

fn feed_forward<B: Backend>(b: &mut B, w: &LayerWeights<B::Weight>, ws: &mut Workspace<B::Buffer>) -> Result<()> {
    let Workspace { step, streams, x, mix, routing, .. } = ws;
    b.hc_pre(step, &w.hc_ffn, streams, x, mix)?;
    b.route(step, &w.route, x, routing)?;
    b.experts(step, &w.experts, x, routing, mix, streams)
}

impl<B: Backend> Transformer<B> {
    /// Binds and uploads every tensor of `file` and builds the cache. `draft` is the file of a draft block to go with it.
    pub fn new(
        mut backend: B,
        file: &Gguf,
        draft: Option<&Gguf>,
        limits: Limits,
        numerics: Numerics,
    ) -> Result<Transformer<B>> {
        let shape = Shape::from_gguf(file)?;
        check_limits(limits)?;
        validate(file, &shape)?;
        draft.map_or(Ok(()), |draft| validate_draft(draft, &shape))?;
        let weights = Weights::bind(&shape, &mut |spec| {
            let tensor = find(file, &spec)?;
            if spec.class == Class::HashTable {
                check_hash_table(file, &tensor, shape.n_expert)?;
            }
            backend.upload(&tensor, spec.class)
        })?;
        let layout = KvLayout::new(&shape, limits, numerics, draft.is_some());
        let cache = layout.allocate(&mut |bytes| backend.alloc(bytes))?;
        let workspace = Workspace::allocate(&shape, limits, draft.is_some(), &mut |bytes| backend.alloc(bytes))?;
        let fingerprint = fingerprint(file, draft, &shape, numerics);
        let variant = variant(file, draft, &shape, numerics);
        let mut take =
            |file: &Gguf| DraftWeights::bind(&shape, &mut |spec| backend.upload(&find(file, &spec)?, spec.class));
        let draft = draft.map(&mut take).transpose()?;
        let (rows, prime) = (Vec::new(), Vec::new());
        Ok(Transformer {
            shape,
            limits,
            layout,
            fingerprint,
            variant,
            backend,
            weights,
            draft,
            cache,
            workspace,
            rows,
            prime,
        })
    }

    /// Memory that [`Transformer::new`] would need.
    pub fn plan(file: &Gguf, draft: Option<&Gguf>, limits: Limits, numerics: Numerics) -> Result<MemoryPlan> {
        let shape = Shape::from_gguf(file)?;
        check_limits(limits)?;
        Ok(MemoryPlan {
            weights: [Some(file), draft].into_iter().flatten().flat_map(Gguf::tensors).map(|tensor| tensor.bytes).sum(),
            kv: KvLayout::new(&shape, limits, numerics, draft.is_some()).bytes(),
            scratch: Workspace::<()>::bytes(&shape, limits, draft.is_some()),
            piece: 0,
        })
    }

    /// The device, for probes.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    fn check(&self, batch: &Batch<'_>, outputs: &Outputs<'_>) -> Result<()> {
        let bad = |what: String| Err(Error::Batch(what));
        let rows: u64 = batch.spans.iter().map(|span| u64::from(span.len)).sum();
        if rows != batch.tokens.len() as u64 {
            return bad(format!("spans of {rows} rows for {} tokens", batch.tokens.len()));
        }
        if rows > u64::from(self.limits.max_rows) {
            return bad(format!("{rows} rows, at most {}", self.limits.max_rows));
        }
        if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= self.shape.n_vocab) {
            return bad(format!("token {token}, vocabulary of {}", self.shape.n_vocab));
        }
        for (i, span) in batch.spans.iter().enumerate() {
            if span.slot >= self.limits.slots {
                return bad(format!("slot {}, cache of {}", span.slot, self.limits.slots));
            }
            if batch.spans[..i].iter().any(|other| other.slot == span.slot) {
                return bad(format!("slot {} twice", span.slot));
            }
            let end = u64::from(span.pos) + u64::from(span.len);
            if end > u64::from(self.limits.context) {
                return bad(format!("position {end}, context of {}", self.limits.context));
            }
        }
        let wanted = batch.logit_rows();
        let (found, wanted, what) = match outputs {
            Outputs::Logits(logits) => (logits.len(), wanted * self.shape.n_vocab, "logits"),
            Outputs::Best(best) => (best.len(), wanted, "best tokens"),
        };
        if found == wanted { Ok(()) } else { bad(format!("room for {found} {what}, {wanted} wanted")) }
    }

    /// Runs the batch in as many steps as it takes.
    fn run(&mut self, batch: &Batch<'_>, mut outputs: Outputs<'_>) -> Result<()> {
        self.check(batch, &outputs)?;
        for pieces in steps(batch, B::SMALL_STEP) {
            let wanted = pieces.iter().map(|(span, _)| span.logit_rows()).sum();
            self.step(&pieces, outputs.split_off(wanted, self.shape.n_vocab))?;
        }
        Ok(())
    }

    /// Runs one step. `pieces` are parts of spans with their tokens; `outputs` takes the rows they ask for.
    fn step(&mut self, pieces: &[(Span, &[u32])], outputs: Outputs<'_>) -> Result<()> {
        self.rows.clear();
        let mut wanted = 0;
        for (span, tokens) in pieces {
            for (i, &token) in tokens.iter().enumerate() {
                let last = i + 1 == tokens.len();
                let wants = span.logits == LogitRows::All || (span.logits == LogitRows::Last && last);
                let logits = if wants { wanted } else { NO_LOGITS };
                wanted += u32::from(wants);
                let (pos, end) = (span.pos + i as u32, span.pos + span.len);
                let (slot, first) = (span.slot, span.pos);
                self.rows.push(StepRow { token, pos, slot, first, end, logits, state: pos, pad: 0 });
            }
        }
        let Some(context) = self.rows.iter().map(|row| row.pos + 1).max() else { return Ok(()) };
        self.write_prime(context)?;
        // A sequence's first token completes no row of a draft block, so steps with one differ from other decode steps.
        let starts = self.draft.is_some() && self.rows.iter().any(|row| row.pos == 0);
        let decodes = pieces.iter().all(|(span, _)| span.len == 1) && !starts;
        let key = self.write_rows(context, decodes, false)?;
        let Transformer { backend, weights, draft, cache, workspace, .. } = self;
        backend.submit(key, |b| forward(b, weights, draft.as_ref(), cache, workspace))?;
        self.read(outputs)
    }

    /// The rows of the draft block that the step completes: state of `pos - 1`, token at `pos`. Rows that no draft can ask for
    /// are left out: of a long chunk only its end matters.
    fn write_prime(&mut self, context: u32) -> Result<()> {
        let Some(step) = &mut self.workspace.prime else { return Ok(()) };
        self.prime.clear();
        for row in &self.rows {
            let from = self.layout.draft_from(row.end).max(row.first.saturating_sub(1));
            if row.pos > from {
                let (pos, end) = (row.pos - 1, row.end - 1);
                self.prime.push(StepRow { pos, first: from, end, logits: NO_LOGITS, ..*row });
            }
        }
        step.n = self.prime.len();
        step.context = context;
        step.logits = 0;
        self.backend.write(&mut step.rows, 0, bytemuck::cast_slice(&self.prime))
    }

    /// Brings `self.rows` to the device. A step that may be recorded has a key.
    fn write_rows(&mut self, context: u32, record: bool, draft: bool) -> Result<Option<GraphKey>> {
        let step = &mut self.workspace.step;
        step.n = self.rows.len();
        step.context = if record { bucket(context, self.limits.context) } else { context };
        step.logits = self.rows.iter().filter(|row| row.logits != NO_LOGITS).count();
        let (rows, logits) = (step.n as u32, step.logits as u32);
        self.backend.write(&mut step.rows, 0, bytemuck::cast_slice(&self.rows))?;
        Ok(record.then_some(GraphKey { rows, logits, context: step.context, draft }))
    }

    /// Waits for the step and brings what is wanted of it. If that is nothing, nobody waits.
    fn read(&mut self, outputs: Outputs<'_>) -> Result<()> {
        let (backend, made) = (&mut self.backend, &self.workspace.logits);
        match outputs {
            Outputs::Logits([]) | Outputs::Best([]) => Ok(()),
            Outputs::Logits(logits) => backend.read(made, 0, bytemuck::cast_slice_mut(logits)),
            Outputs::Best(best) => backend.best(made, self.shape.n_vocab, best),
        }
    }

    fn check_drafts(&self, rows: &[DraftRow], logits: &[f32]) -> Result<()> {
        let bad = |what: String| Err(Error::Batch(what));
        if self.draft.is_none() {
            return bad("a draft, but no draft block is loaded".to_owned());
        }
        for (i, row) in rows.iter().enumerate() {
            if row.token as usize >= self.shape.n_vocab {
                return bad(format!("token {}, vocabulary of {}", row.token, self.shape.n_vocab));
            }
            if row.slot >= self.limits.slots {
                return bad(format!("slot {}, cache of {}", row.slot, self.limits.slots));
            }
            if rows[..i].iter().any(|other| other.slot == row.slot) {
                return bad(format!("slot {} twice", row.slot));
            }
            if row.pos >= self.limits.context {
                return bad(format!("draft at position {}, context of {}", row.pos, self.limits.context));
            }
        }
        let wanted = rows.len() * self.shape.n_vocab;
        if logits.len() != wanted {
            return bad(format!("room for {} logits, {wanted} wanted", logits.len()));
        }
        Ok(())
    }
}

impl<B: Backend> Model for Transformer<B> {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        self.run(batch, Outputs::Logits(logits))
    }

    fn forward_best(&mut self, batch: &Batch<'_>, best: &mut [Best]) -> Result<()> {
        self.run(batch, Outputs::Best(best))
    }

    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        check_range(self.limits, slot, &rows)?;
        let mut bytes = Vec::new();
        for region in self.layout.regions(&self.cache, slot, rows) {
            bytes.resize(region.len, 0);
            self.backend.read(self.cache.table_mut(&region), region.at, &mut bytes)?;
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        check_range(self.limits, slot, &rows)?;
        let mut bytes = Vec::new();
        for region in self.layout.regions(&self.cache, slot, rows) {
            bytes.resize(region.len, 0);
            src.read_exact(&mut bytes)?;
            self.backend.write(self.cache.table_mut(&region), region.at, &bytes)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: SlotId, to: SlotId, n: u32) -> Result<()> {
        check_range(self.limits, from, &(0..n))?;
        check_range(self.limits, to, &(0..n))?;
        // The place of a row in its slot follows from its position: the regions of two slots are alike.
        let there = self.layout.regions(&self.cache, to, 0..n);
        for (source, target) in self.layout.regions(&self.cache, from, 0..n).iter().zip(there) {
            self.backend.copy(self.cache.table_mut(source), source.at, target.at, source.len)?;
        }
        Ok(())
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        self.layout.state_bytes(rows)
    }

    fn parts(&self, n: u32) -> Vec<Part> {
        self.layout.parts(n)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn variant(&self) -> Variant {
        self.variant
    }

    fn has_draft(&self) -> bool {
        self.draft.is_some()
    }

    fn draft(&mut self, rows: &[DraftRow], logits: &mut [f32]) -> Result<()> {
        self.check_drafts(rows, logits)?;
        let mut outputs = Outputs::Logits(logits);
        for rows in rows.chunks(MAX_LOGIT_ROWS.min(self.limits.max_rows as usize)) {
            self.rows.clear();
            self.rows.extend((0..).zip(rows).map(|(logits, &DraftRow { slot, pos, token })| StepRow {
                token,
                pos,
                slot,
                first: pos,
                end: pos + 1,
                logits,
                state: pos + 1,
                pad: 0,
            }));
            let context = rows.iter().map(|row| row.pos + 1).max().expect("chunks are not empty");
            let key = self.write_rows(context, true, true)?;
            let Transformer { backend, weights, draft: block, cache, workspace, .. } = self;
            let (block, kv) = block.as_ref().zip(cache.draft.as_mut()).expect("checked: a draft block is loaded");
            backend.submit(key, |b| draft(b, block, weights, kv, workspace))?;
            self.read(outputs.split_off(rows.len(), self.shape.n_vocab))?;
        }
        Ok(())
    }
}

/// The context that steps of one recording are made for. Devices size their scratch memory for the longest context: a bucket
/// goes no further.
fn bucket(context: u32, longest: u32) -> u32 {
    context.next_power_of_two().min(longest)
}

/// Cuts a batch into steps of at most `MAX_LOGIT_ROWS` rows of logits. Pieces of one span fall into different steps: each
/// reads what the one before has written. A batch of more than `small` rows is also cut between spans of prompts and those of
/// sequences that decode: see [`Backend::SMALL_STEP`].
fn steps<'a>(batch: &Batch<'a>, small: usize) -> Vec<Vec<(Span, &'a [u32])>> {
    let decodes = |span: &Span| span.len <= MAX_DRAFT + 1;
    let whole = batch.tokens.len() <= small;
    let (mut kind, mut rows) = (None, 0);
    let mut steps = vec![Vec::new()];
    let (mut tokens, mut wanted) = (batch.tokens, 0);
    for span in batch.spans {
        let mut left = *span;
        let full = decodes(span) && rows + span.len as usize > small;
        if !whole && (full || kind.is_some_and(|kind| kind != decodes(span))) {
            steps.push(Vec::new());
            (wanted, rows) = (0, 0);
        }
        (kind, rows) = (Some(decodes(span)), rows + span.len as usize);
        while left.len > 0 {
            if wanted == MAX_LOGIT_ROWS && left.logits != LogitRows::None {
                steps.push(Vec::new());
                wanted = 0;
            }
            let len =
                if left.logits == LogitRows::All { left.len.min((MAX_LOGIT_ROWS - wanted) as u32) } else { left.len };
            let piece = Span { len, ..left };
            let (now, later) = tokens.split_at(len as usize);
            tokens = later;
            wanted += piece.logit_rows();
            steps.last_mut().expect("never empty").push((piece, now));
            left = Span { pos: left.pos + len, len: left.len - len, ..left };
        }
    }
    steps
}

/// Bounds that keep every size of the cache and the workspace far inside 64 bits.
fn check_limits(limits: Limits) -> Result<()> {
    const MAX_CONTEXT: u32 = 1 << 24;
    const MAX_SLOTS: u32 = 1 << 12;
    const MAX_ROWS: u32 = 1 << 16;
    let Limits { context, slots, max_rows, rewind } = limits;
    for (name, found, least, most) in [
        ("context", context, 1, MAX_CONTEXT),
        ("slots", slots, 1, MAX_SLOTS),
        ("rows", max_rows, 1, MAX_ROWS),
        ("rewind", rewind, 0, MAX_ROWS),
    ] {
        if !(least..=most).contains(&found) {
            return Err(Error::Limits(format!("{name} {found}, expected {least} to {most}")));
        }
    }
    Ok(())
}

fn check_range(limits: Limits, slot: SlotId, rows: &Range<u32>) -> Result<()> {
    if slot >= limits.slots {
        return Err(Error::State(format!("slot {slot}, cache of {}", limits.slots)));
    }
    if rows.start > rows.end || rows.end > limits.context {
        return Err(Error::State(format!("tokens {}..{}, context of {}", rows.start, rows.end, limits.context)));
    }
    Ok(())
}

/// Directory, a sample of every tensor, and how rows are held: enough to tell any two models apart without reading them.
fn fingerprint(file: &Gguf, draft: Option<&Gguf>, shape: &Shape, numerics: Numerics) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{shape:?} {numerics:?}"));
    for file in [Some(file), draft].into_iter().flatten() {
        for info in file.tensors() {
            hash.update(format!("{} {} {}\n", info.name, info.dtype, info.dims));
            if let Some(tensor) = file.tensor(&info.name) {
                hash.update(&tensor.data[..tensor.data.len().min(SAMPLE)]);
            }
        }
    }
    hash.finalize().into()
}

/// What quantisation leaves alone: names and dimensions of all tensors, and a sample of those that stay float32.
fn variant(file: &Gguf, draft: Option<&Gguf>, shape: &Shape, numerics: Numerics) -> Variant {
    let mut hash = Sha256::new();
    hash.update(format!("{shape:?} {numerics:?} {}", draft.is_some()));
    for file in [Some(file), draft].into_iter().flatten() {
        for info in file.tensors() {
            hash.update(format!("{} {}\n", info.name, info.dims));
            if let (DType::F32, Some(tensor)) = (info.dtype, file.tensor(&info.name)) {
                hash.update(&tensor.data[..tensor.data.len().min(SAMPLE)]);
            }
        }
    }
    let experts = file.tensor("blk.0.ffn_gate_exps.weight");
    Variant { family: hash.finalize().into(), quant: experts.map_or(0, |tensor| tensor.dtype.id() as u8) }
}

/// Bytes of a tensor that tell it from another.
const SAMPLE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(spans: &[(u32, LogitRows)], small: usize) -> Vec<Vec<u32>> {
        let spans: Vec<Span> =
            (0..).zip(spans).map(|(slot, &(len, logits))| Span { slot, pos: 0, len, logits }).collect();
        let tokens = vec![0; spans.iter().map(|span| span.len as usize).sum()];
        let batch = Batch { tokens: &tokens, spans: &spans };
        let cut = steps(&batch, small);
        cut.iter().map(|step| step.iter().map(|(span, _)| span.len).collect()).collect()
    }

    #[test]
    fn a_bucket_holds_its_context_and_no_more_than_the_cache() {
        for (context, longest, expected) in [(1, 1, 1), (5, 100, 8), (64, 100, 64), (65, 100, 100), (100, 100, 100)] {
            assert_eq!(bucket(context, longest), expected);
        }
    }

    #[test]
    fn rows_that_decode_share_no_long_step_with_a_prompt() {
        let spans = [(1, LogitRows::Last), (1, LogitRows::Last), (100, LogitRows::Last), (1, LogitRows::Last)];
        assert_eq!(lengths(&spans, usize::MAX), [vec![1, 1, 100, 1]]);
        assert_eq!(lengths(&spans, 64), [vec![1, 1], vec![100], vec![1]]);
        assert_eq!(lengths(&spans[..2], 64), [vec![1, 1]]);
        assert_eq!(lengths(&[(30, LogitRows::None), (1, LogitRows::Last)], 64), [vec![30, 1]]);
    }

    #[test]
    fn steps_of_decoding_rows_stay_small_and_logits_fit_their_buffer() {
        assert_eq!(lengths(&[(1, LogitRows::Last); 70], 64).iter().map(Vec::len).collect::<Vec<_>>(), [64, 6]);
        assert_eq!(lengths(&[(100, LogitRows::All)], usize::MAX), [vec![64], vec![36]]);
    }
}
