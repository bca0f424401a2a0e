//! A backend that looks at what each stage of another one has written: the reference's outputs go onto a tape, the device's
//! are compared with that tape and then overwritten by it. So every stage of the device starts from the reference's inputs,
//! and one stage's error cannot hide in the next.

use std::collections::VecDeque;

use bytemuck::Zeroable;
use ds4_gguf::Tensor;
use ds4_model::{
    AttnOutputWeights, Backend, Best, Class, Compressed, CompressorWeights, DraftEmbedWeights, Error, ExpertWeights,
    GraphKey, HC, HeadWeights, HyperConnection, LayerKv, LowRank, NO_LOGITS, ProjectWeights, Queries, QueryWeights,
    Result, RouteWeights, Routing, Rows, Shape, Stage, Step, StepRow, visible_rows,
};

use crate::decode;
use crate::tally::{DECODE_ROWS, Differing, Form, Seen, Tally};

/// What the stages of a step wrote, in their order.
pub(crate) type Tape = VecDeque<(Stage, &'static str, Vec<u8>)>;

/// What to do with the outputs.
pub(crate) enum Role {
    /// Nothing: every stage is submitted by itself, and that is all.
    Look,
    /// Onto the tape.
    Record(Tape),
    /// Compared with the tape and overwritten by it.
    Follow(Tape, Box<Tally>),
}

/// `B`, looked at. Every stage is a submission of its own without a key: nothing is replayed.
pub(crate) struct Tap<B> {
    inner: B,
    shape: Shape,
    pub(crate) role: Role,
}

/// One output: rows of equal length at byte offsets of a buffer. What is undefined is left out.
struct Output<'a, Buf> {
    name: &'static str,
    form: Form,
    buffer: &'a mut Buf,
    row_bytes: usize,
    /// Rows of the step and where their outputs lie.
    rows: Vec<(usize, usize)>,
}

impl<'a, Buf> Output<'a, Buf> {
    /// `width` float32 values for every row of the step.
    fn floats(name: &'static str, buffer: &'a mut Buf, n: usize, width: usize) -> Output<'a, Buf> {
        Output::some(name, buffer, 0..n, width)
    }

    /// The same for some rows.
    fn some(
        name: &'static str,
        buffer: &'a mut Buf,
        rows: impl IntoIterator<Item = usize>,
        width: usize,
    ) -> Output<'a, Buf> {
        let row_bytes = 4 * width;
        let rows = rows.into_iter().map(|row| (row, row * row_bytes)).collect();
        Output { name, form: Form::Floats, buffer, row_bytes, rows }
    }

    fn form(self, form: Form) -> Output<'a, Buf> {
        Output { form, ..self }
    }

    /// Ring rows of the positions `pos`; of a span longer than the ring only its end is kept.
    fn ring(
        name: &'static str,
        form: Form,
        ring: &'a mut Rows<Buf>,
        rows: &[StepRow],
        pos: impl Fn(&StepRow) -> u32,
    ) -> Output<'a, Buf> {
        let kept = rows.iter().enumerate().filter(|(_, row)| (row.end - row.pos) as usize <= ring.per_slot);
        let rows = kept.map(|(i, row)| (i, ring.ring_at(row.slot, pos(row)))).collect();
        Output { name, form, row_bytes: ring.row_bytes, rows, buffer: &mut ring.data }
    }

    /// Append-only rows of windows that close in the step.
    fn closed(
        name: &'static str,
        form: Form,
        table: &'a mut Rows<Buf>,
        rows: &[StepRow],
        ratio: u32,
    ) -> Output<'a, Buf> {
        let closing = rows.iter().enumerate().filter(|(_, row)| (row.pos + 1).is_multiple_of(ratio));
        let rows = closing.map(|(i, row)| (i, table.at(row.slot, row.pos / ratio))).collect();
        Output { name, form, row_bytes: table.row_bytes, rows, buffer: &mut table.data }
    }

    /// Runs of rows that lie side by side: byte offset, and the range in the bytes of all rows.
    fn runs(&self) -> Vec<(usize, std::ops::Range<usize>)> {
        let mut runs: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        for (i, &(_, at)) in self.rows.iter().enumerate() {
            let range = i * self.row_bytes..(i + 1) * self.row_bytes;
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() == at => run.end = range.end,
                _ => runs.push((at, range)),
            }
        }
        runs
    }
}

/// What a selection is made from.
type Selecting<'a, Buf> = (&'a LowRank<Buf>, &'a Queries<Buf>, &'a Compressed<Buf>);

impl<B: Backend> Tap<B> {
    pub(crate) fn new(inner: B, shape: &Shape, role: Role) -> Tap<B> {
        Tap { inner, shape: shape.clone(), role }
    }

    /// One stage, eagerly.
    fn run(&mut self, stage: impl FnOnce(&mut B) -> Result<()> + Send) -> Result<()> {
        self.inner.submit(None, stage)
    }

    fn looks(&self) -> bool {
        matches!(self.role, Role::Look)
    }

    fn rows(&mut self, step: &Step<B::Buffer>) -> Result<Vec<StepRow>> {
        let mut rows = vec![StepRow::zeroed(); step.n];
        self.inner.read(&step.rows, 0, bytemuck::cast_slice_mut(&mut rows))?;
        Ok(rows)
    }

    /// Records or compares one output; answers with the rows of numbers that differ.
    fn observe(&mut self, stage: Stage, n: usize, out: &mut Output<'_, B::Buffer>) -> Result<Vec<Differing>> {
        let runs = out.runs();
        let mut bytes = vec![0; out.rows.len() * out.row_bytes];
        for (at, range) in &runs {
            self.inner.read(out.buffer, *at, &mut bytes[range.clone()])?;
        }
        match &mut self.role {
            Role::Look => Ok(Vec::new()),
            Role::Record(tape) => {
                tape.push_back((stage, out.name, bytes));
                Ok(Vec::new())
            }
            Role::Follow(tape, tally) => {
                let (recorded, name, expected) = tape.pop_front().ok_or_else(|| lost("the end", stage, out.name))?;
                if (recorded, name) != (stage, out.name) || expected.len() != bytes.len() {
                    return Err(lost(name, stage, out.name));
                }
                let rows: Vec<usize> = out.rows.iter().map(|(row, _)| *row).collect();
                let seen =
                    Seen { form: out.form, row_bytes: out.row_bytes, rows: &rows, found: &bytes, expected: &expected };
                let differing =
                    if rows.is_empty() { Vec::new() } else { tally.compare((stage, out.name, n > DECODE_ROWS), &seen) };
                for (at, range) in runs {
                    self.inner.write(out.buffer, at, &expected[range])?;
                }
                Ok(differing)
            }
        }
    }

    fn observe_all<const N: usize>(&mut self, stage: Stage, n: usize, outs: [Output<'_, B::Buffer>; N]) -> Result<()> {
        outs.into_iter().try_for_each(|mut out| self.observe(stage, n, &mut out).map(drop))
    }

    /// Counts a differing row that no near tie explains.
    fn unexplained(&mut self, stage: Stage, output: &'static str, n: usize) {
        if let Role::Follow(_, tally) = &mut self.role {
            tally.line(stage, output, n > DECODE_ROWS).unexplained += 1;
        }
    }

    fn read_floats(&mut self, buffer: &B::Buffer, row: usize, width: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * width];
        self.inner.read(buffer, row * bytes.len(), &mut bytes)?;
        Ok(decode::floats(&bytes))
    }

    /// Whether everything that only one side has selected scores as much as the last row that the reference selects, but for
    /// rounding.
    fn selection_ties(
        &mut self,
        row: &StepRow,
        differing: &Differing,
        (low, q, rows): Selecting<'_, B::Buffer>,
    ) -> Result<bool> {
        let table = &rows.index.as_ref().expect("the driver selects in layers with an indexer").rows;
        let (heads, dim) = (self.shape.n_index_head, self.shape.index_dim);
        let weights = self.read_floats(&low.index_weights, differing.row, heads)?;
        let query = self.read_floats(&q.index, differing.row, heads * dim)?;
        let mut bytes = vec![0; table.row_bytes * visible_rows(row.pos, rows.ratio) as usize];
        self.inner.read(&table.data, table.at(row.slot, 0), &mut bytes)?;
        let Role::Follow(_, tally) = &self.role else { return Ok(true) };
        let key = |bytes: &[u8]| decode::index_row(tally.numerics, &self.shape, bytes);
        let scores: Vec<f64> =
            bytes.chunks(table.row_bytes).map(|bytes| decode::score(&weights, &query, &key(bytes))).collect();
        let score = |id: u32| scores.get(id as usize).copied().unwrap_or(f64::NAN);
        let last = differing.expected.iter().map(|&id| score(id)).fold(f64::INFINITY, f64::min);
        let size = scores.iter().fold(0f64, |max, score| max.max(score.abs()));
        Ok(proper_set(&differing.found) && differing.either().iter().all(|&id| (score(id) - last).abs() <= TIE * size))
    }

    /// Whether the same experts stand in another order because they weigh the same, but for rounding.
    fn order_ties(&mut self, differing: &Differing, weights: &B::Buffer) -> Result<bool> {
        let used = self.shape.n_expert_used;
        let weights = self.read_floats(weights, differing.row, used)?;
        let place = |id: &u32| differing.expected.iter().position(|other| other == id);
        let swapped = differing.found.iter().enumerate();
        let close = |a: f32, b: f32| (a - b).abs() <= TIE as f32 * a.abs().max(b.abs());
        Ok(differing.either().is_empty()
            && swapped.into_iter().all(|(i, id)| place(id).is_some_and(|at| close(weights[i], weights[at]))))
    }

    /// Rows whose query sees more indexed rows than it may attend to.
    fn selecting(&self, rows: &[StepRow]) -> Vec<usize> {
        let selects = |row: &StepRow| visible_rows(row.pos, INDEXED_RATIO) as usize > self.shape.index_top_k;
        (0..rows.len()).filter(|&i| selects(&rows[i])).collect()
    }
}

/// Layers with an indexer compress this many positions into a row (model.md 7).
const INDEXED_RATIO: u32 = 4;
/// Scores that differ by no more than this share of the largest are equal but for rounding.
const TIE: f64 = 1e-4;

/// Ascending and without repetition, as `select` promises.
fn proper_set(ids: &[u32]) -> bool {
    ids.windows(2).all(|pair| pair[0] < pair[1])
}

fn lost(recorded: &str, stage: Stage, output: &str) -> Error {
    let what = format!("wrote {output} of {stage:?} where the reference wrote {recorded}");
    Error::Device { device: "under test".to_owned(), what }
}

impl<B: Backend> Backend for Tap<B> {
    type Buffer = B::Buffer;
    type Weight = B::Weight;

    fn alloc(&mut self, bytes: usize) -> Result<B::Buffer> {
        self.inner.alloc(bytes)
    }

    fn upload(&mut self, tensor: &Tensor, class: Class) -> Result<B::Weight> {
        self.inner.upload(tensor, class)
    }

    fn write(&mut self, dst: &mut B::Buffer, at: usize, src: &[u8]) -> Result<()> {
        self.inner.write(dst, at, src)
    }

    fn read(&mut self, src: &B::Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        self.inner.read(src, at, dst)
    }

    fn copy(&mut self, buffer: &mut B::Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        self.inner.copy(buffer, from, at, len)
    }

    fn best(&mut self, logits: &B::Buffer, n_vocab: usize, best: &mut [Best]) -> Result<()> {
        self.inner.best(logits, n_vocab, best)
    }

    fn submit(&mut self, _key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        record(self)
    }

    fn embed(&mut self, step: &Step<B::Buffer>, table: &B::Weight, streams: &mut B::Buffer) -> Result<()> {
        self.run(|b| b.embed(step, table, streams))?;
        if self.looks() {
            return Ok(());
        }
        let width = HC * self.shape.n_embd;
        self.observe_all(Stage::Embed, step.n, [Output::floats("streams", streams, step.n, width)])
    }

    fn hc_pre(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HyperConnection<B::Weight>,
        streams: &B::Buffer,
        x: &mut B::Buffer,
        mix: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.hc_pre(step, w, streams, x, mix))?;
        if self.looks() {
            return Ok(());
        }
        let n_embd = self.shape.n_embd;
        let outs = [Output::floats("x", x, step.n, n_embd), Output::floats("mix", mix, step.n, HC + HC * HC)];
        self.observe_all(Stage::HcPre, step.n, outs)
    }

    fn project(
        &mut self,
        step: &Step<B::Buffer>,
        w: &ProjectWeights<B::Weight>,
        x: &B::Buffer,
        low: &mut LowRank<B::Buffer>,
        window: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.run(|b| b.project(step, w, x, low, window))?;
        if self.looks() {
            return Ok(());
        }
        let (rows, stage, n) = (self.rows(step)?, Stage::Project, step.n);
        let (q, heads) = (self.shape.q_lora_dim, self.shape.n_index_head);
        let width = |dim| 2 * Shape::pooled_dim(w.ratio, dim);
        let (pooled, index_pooled) = (width(self.shape.head_dim), width(self.shape.index_dim));
        self.observe_all(stage, n, [Output::floats("q", &mut low.q, n, q)])?;
        self.observe_all(stage, n, [Output::ring("window", Form::Row, window, &rows, |row| row.pos)])?;
        if w.pooled.is_some() {
            self.observe_all(stage, n, [Output::floats("pooled", &mut low.pooled, n, pooled)])?;
        }
        if w.index.is_some() {
            let selecting = self.selecting(&rows);
            let outs = [
                Output::floats("index_pooled", &mut low.index_pooled, n, index_pooled),
                // Nobody reads the others.
                Output::some("index_weights", &mut low.index_weights, selecting, heads),
            ];
            self.observe_all(stage, n, outs)?;
        }
        Ok(())
    }

    fn query(
        &mut self,
        step: &Step<B::Buffer>,
        w: &QueryWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        q: &mut Queries<B::Buffer>,
    ) -> Result<()> {
        self.run(|b| b.query(step, w, low, q))?;
        if self.looks() {
            return Ok(());
        }
        let (rows, stage, n) = (self.rows(step)?, Stage::Query, step.n);
        let (width, index) = (self.shape.n_head * self.shape.head_dim, self.shape.n_index_head * self.shape.index_dim);
        self.observe_all(stage, n, [Output::floats("heads", &mut q.heads, n, width)])?;
        if w.index_q_b.is_some() {
            let out = Output::some("index", &mut q.index, self.selecting(&rows), index);
            self.observe_all(stage, n, [out.form(Form::Grid)])?;
        }
        Ok(())
    }

    fn compress(
        &mut self,
        step: &Step<B::Buffer>,
        w: &CompressorWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        out: &mut Compressed<B::Buffer>,
    ) -> Result<()> {
        self.run(|b| b.compress(step, w, low, out))?;
        if self.looks() {
            return Ok(());
        }
        let (rows, stage, n) = (self.rows(step)?, Stage::Compress, step.n);
        let outs = [
            Output::closed("rows", Form::Row, &mut out.rows, &rows, out.ratio),
            Output::ring("frontier", Form::Floats, &mut out.frontier, &rows, |row| row.pos),
        ];
        self.observe_all(stage, n, outs)?;
        let Some(index) = &mut out.index else { return Ok(()) };
        let outs = [
            Output::closed("index_rows", Form::IndexRow, &mut index.rows, &rows, out.ratio),
            Output::ring("index_frontier", Form::Floats, &mut index.frontier, &rows, |row| row.pos),
        ];
        self.observe_all(stage, n, outs)
    }

    fn select(
        &mut self,
        step: &Step<B::Buffer>,
        low: &LowRank<B::Buffer>,
        q: &Queries<B::Buffer>,
        rows: &Compressed<B::Buffer>,
        selected: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.select(step, low, q, rows, selected))?;
        if self.looks() {
            return Ok(());
        }
        let step_rows = self.rows(step)?;
        let out = Output::some("selected", selected, self.selecting(&step_rows), self.shape.index_top_k);
        for differing in self.observe(Stage::Select, step.n, &mut out.form(Form::Ids))? {
            if !self.selection_ties(&step_rows[differing.row], &differing, (low, q, rows))? {
                self.unexplained(Stage::Select, "selected", step.n);
            }
        }
        Ok(())
    }

    fn attend(
        &mut self,
        step: &Step<B::Buffer>,
        sinks: &B::Weight,
        q: &Queries<B::Buffer>,
        kv: &LayerKv<B::Buffer>,
        selected: &B::Buffer,
        heads: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.attend(step, sinks, q, kv, selected, heads))?;
        if self.looks() {
            return Ok(());
        }
        // The kinds of attention are different work.
        let name = match kv.compressed.as_ref().map(|c| c.ratio) {
            None => "heads, ratio 0",
            Some(4) => "heads, ratio 4",
            Some(_) => "heads, ratio 128",
        };
        let width = self.shape.n_head * self.shape.head_dim;
        self.observe_all(Stage::Attend, step.n, [Output::floats(name, heads, step.n, width)])
    }

    fn attn_output(
        &mut self,
        step: &Step<B::Buffer>,
        w: &AttnOutputWeights<B::Weight>,
        heads: &B::Buffer,
        mix: &B::Buffer,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.attn_output(step, w, heads, mix, streams))?;
        if self.looks() {
            return Ok(());
        }
        let width = HC * self.shape.n_embd;
        self.observe_all(Stage::AttnOutput, step.n, [Output::floats("streams", streams, step.n, width)])
    }

    fn route(
        &mut self,
        step: &Step<B::Buffer>,
        w: &RouteWeights<B::Weight>,
        x: &B::Buffer,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<()> {
        self.run(|b| b.route(step, w, x, routing))?;
        if self.looks() {
            return Ok(());
        }
        let (stage, n, used, ff) = (Stage::Route, step.n, self.shape.n_expert_used, self.shape.ff_dim);
        let mut ids = Output::floats("ids", &mut routing.ids, n, used).form(Form::Ids);
        let differing = self.observe(stage, n, &mut ids)?;
        // Weights belong to their experts: where those differ there is nothing to compare. The reference's tape knows no
        // such rows, so all rows are on it.
        self.forget(stage, &differing, &mut routing.weights)?;
        let outs = [
            Output::floats("weights", &mut routing.weights, n, used),
            Output::floats("shared", &mut routing.shared, n, ff),
        ];
        self.observe_all(stage, n, outs)?;
        for differing in differing {
            if !self.order_ties(&differing, &routing.weights)? {
                self.unexplained(stage, "ids", n);
            }
        }
        Ok(())
    }

    fn experts(
        &mut self,
        step: &Step<B::Buffer>,
        w: &ExpertWeights<B::Weight>,
        x: &B::Buffer,
        routing: &Routing<B::Buffer>,
        mix: &B::Buffer,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.experts(step, w, x, routing, mix, streams))?;
        if self.looks() {
            return Ok(());
        }
        let width = HC * self.shape.n_embd;
        self.observe_all(Stage::Experts, step.n, [Output::floats("streams", streams, step.n, width)])
    }

    fn head(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HeadWeights<B::Weight>,
        output: &B::Weight,
        streams: &B::Buffer,
        logits: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.head(step, w, output, streams, logits))?;
        if self.looks() {
            return Ok(());
        }
        let wanted = self.rows(step)?.iter().filter(|row| row.logits != NO_LOGITS).count();
        let out = Output::floats("logits", logits, wanted, self.shape.n_vocab);
        self.observe_all(Stage::Head, step.n, [out])
    }

    fn keep_streams(
        &mut self,
        step: &Step<B::Buffer>,
        streams: &B::Buffer,
        hidden: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.run(|b| b.keep_streams(step, streams, hidden))?;
        if self.looks() {
            return Ok(());
        }
        let rows = self.rows(step)?;
        let out = Output::ring("hidden", Form::Floats, hidden, &rows, |row| row.state);
        self.observe_all(Stage::KeepStreams, step.n, [out])
    }

    fn draft_embed(
        &mut self,
        step: &Step<B::Buffer>,
        w: &DraftEmbedWeights<B::Weight>,
        table: &B::Weight,
        hidden: &Rows<B::Buffer>,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.run(|b| b.draft_embed(step, w, table, hidden, streams))?;
        if self.looks() {
            return Ok(());
        }
        let width = HC * self.shape.n_embd;
        self.observe_all(Stage::DraftEmbed, step.n, [Output::floats("streams", streams, step.n, width)])
    }
}

impl<B: Backend> Tap<B> {
    /// Puts the tape's rows in place of those that cannot be compared.
    fn forget(&mut self, stage: Stage, differing: &[Differing], buffer: &mut B::Buffer) -> Result<()> {
        let Role::Follow(tape, _) = &self.role else { return Ok(()) };
        let Some((next, _, bytes)) = tape.front() else { return Err(lost("the end", stage, "weights")) };
        debug_assert_eq!(*next, stage, "the next output is of the same stage");
        let row_bytes = 4 * self.shape.n_expert_used;
        for Differing { row, .. } in differing {
            self.inner.write(buffer, row * row_bytes, &bytes[row * row_bytes..][..row_bytes])?;
        }
        Ok(())
    }
}
