//! A backend that looks at another one: copies what its stages wrote, or puts something else in its place. Wraps from
//! outside, so the model text has no hook for it.

use std::collections::BTreeSet;

use bytemuck::Zeroable;
use ds4_gguf::Tensor;

use crate::{
    AttnOutputWeights, Backend, Best, Class, Compressed, CompressorWeights, DraftEmbedWeights, ExpertWeights, GraphKey,
    HeadWeights, HyperConnection, LayerKv, LowRank, ProjectWeights, Queries, QueryWeights, Result, RouteWeights,
    Routing, Rows, Stage, Step, StepRow, visible_rows,
};

/// What to do behind each stage.
pub trait Probe<B: Backend>: Send {
    /// Called before a step, with the key that it would be recorded by.
    fn begin(&mut self, _backend: &mut B, _key: Option<GraphKey>) -> Result<()> {
        Ok(())
    }

    /// Called after a stage with its step and the buffer it wrote last. What the probe writes there is what later stages
    /// read.
    fn after(&mut self, backend: &mut B, stage: Stage, step: &Step<B::Buffer>, out: &mut B::Buffer) -> Result<()>;
}

/// `B`, probed by `P`. Steps are never replayed, so that every stage is seen.
pub struct Probed<B, P> {
    inner: B,
    /// The probe and what it has gathered.
    pub probe: P,
}

impl<B, P> Probed<B, P> {
    /// Wraps a backend.
    pub fn new(inner: B, probe: P) -> Probed<B, P> {
        Probed { inner, probe }
    }
}

/// Copies the streams after every layer, rows of all steps concatenated per layer.
#[derive(Debug, Default)]
pub struct StreamTrace {
    width: usize,
    n_layer: usize,
    next: usize,
    /// `[layer][row][HC * n_embd]`
    pub layers: Vec<Vec<f32>>,
}

impl StreamTrace {
    /// A trace of a model with `n_layer` layers and streams of `width` values a row.
    pub fn new(n_layer: usize, width: usize) -> StreamTrace {
        StreamTrace { width, n_layer, next: 0, layers: vec![Vec::new(); n_layer] }
    }
}

impl<B: Backend> Probe<B> for StreamTrace {
    fn after(&mut self, backend: &mut B, stage: Stage, step: &Step<B::Buffer>, out: &mut B::Buffer) -> Result<()> {
        if stage == Stage::Experts {
            let mut values = vec![0f32; step.n * self.width];
            backend.read(out, 0, bytemuck::cast_slice_mut(&mut values))?;
            self.layers[self.next].extend(values);
            self.next = (self.next + 1) % self.n_layer;
        }
        Ok(())
    }
}

/// Replaces the indexer's choice by as many visible rows drawn at random: what a model that makes use of its indexer
/// cannot do without. Rows that see no more than they may attend to keep everything.
#[derive(Debug)]
pub struct RandomSelect {
    top_k: usize,
    seed: u64,
}

impl RandomSelect {
    /// For a model that selects `top_k` rows. What a position gets depends on it and the seed alone, not on the batch.
    pub fn new(top_k: usize, seed: u64) -> RandomSelect {
        RandomSelect { top_k, seed }
    }

    /// `top_k` different rows of `0..visible`, ascending (Floyd's algorithm).
    fn draw(&self, pos: u32, visible: u32) -> Vec<u32> {
        let mut state = self.seed ^ u64::from(pos) << 32;
        let mut chosen = BTreeSet::new();
        for last in visible - self.top_k as u32..visible {
            let row = (split_mix(&mut state) % u64::from(last + 1)) as u32;
            if !chosen.insert(row) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }
}

/// The next number of SplitMix64 (Steele et al., 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<B: Backend> Probe<B> for RandomSelect {
    fn after(&mut self, backend: &mut B, stage: Stage, step: &Step<B::Buffer>, out: &mut B::Buffer) -> Result<()> {
        if stage != Stage::Select {
            return Ok(());
        }
        let mut rows = vec![StepRow::zeroed(); step.n];
        backend.read(&step.rows, 0, bytemuck::cast_slice_mut(&mut rows))?;
        for (i, row) in rows.iter().enumerate() {
            let visible = visible_rows(row.pos, INDEXED_RATIO);
            if visible as usize > self.top_k {
                let drawn = self.draw(row.pos, visible);
                backend.write(out, 4 * i * self.top_k, bytemuck::cast_slice(&drawn))?;
            }
        }
        Ok(())
    }
}

/// Layers with an indexer compress this many positions into a row (model.md 7).
const INDEXED_RATIO: u32 = 4;

impl<B: Backend, P: Probe<B>> Backend for Probed<B, P> {
    const SMALL_STEP: usize = B::SMALL_STEP;
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

    fn submit(&mut self, key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        self.probe.begin(&mut self.inner, key)?;
        record(self)
    }

    fn embed(&mut self, step: &Step<B::Buffer>, table: &B::Weight, streams: &mut B::Buffer) -> Result<()> {
        self.inner.embed(step, table, streams)?;
        self.probe.after(&mut self.inner, Stage::Embed, step, streams)
    }

    fn hc_pre(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HyperConnection<B::Weight>,
        streams: &B::Buffer,
        x: &mut B::Buffer,
        mix: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.hc_pre(step, w, streams, x, mix)?;
        self.probe.after(&mut self.inner, Stage::HcPre, step, x)
    }

    fn project(
        &mut self,
        step: &Step<B::Buffer>,
        w: &ProjectWeights<B::Weight>,
        x: &B::Buffer,
        low: &mut LowRank<B::Buffer>,
        window: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.inner.project(step, w, x, low, window)?;
        self.probe.after(&mut self.inner, Stage::Project, step, &mut low.q)
    }

    fn query(
        &mut self,
        step: &Step<B::Buffer>,
        w: &QueryWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        q: &mut Queries<B::Buffer>,
    ) -> Result<()> {
        self.inner.query(step, w, low, q)?;
        self.probe.after(&mut self.inner, Stage::Query, step, &mut q.heads)
    }

    fn compress(
        &mut self,
        step: &Step<B::Buffer>,
        w: &CompressorWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        out: &mut Compressed<B::Buffer>,
    ) -> Result<()> {
        self.inner.compress(step, w, low, out)?;
        self.probe.after(&mut self.inner, Stage::Compress, step, &mut out.rows.data)
    }

    fn select(
        &mut self,
        step: &Step<B::Buffer>,
        low: &LowRank<B::Buffer>,
        q: &Queries<B::Buffer>,
        rows: &Compressed<B::Buffer>,
        selected: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.select(step, low, q, rows, selected)?;
        self.probe.after(&mut self.inner, Stage::Select, step, selected)
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
        self.inner.attend(step, sinks, q, kv, selected, heads)?;
        self.probe.after(&mut self.inner, Stage::Attend, step, heads)
    }

    fn attn_output(
        &mut self,
        step: &Step<B::Buffer>,
        w: &AttnOutputWeights<B::Weight>,
        heads: &B::Buffer,
        mix: &B::Buffer,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.attn_output(step, w, heads, mix, streams)?;
        self.probe.after(&mut self.inner, Stage::AttnOutput, step, streams)
    }

    fn route(
        &mut self,
        step: &Step<B::Buffer>,
        w: &RouteWeights<B::Weight>,
        x: &B::Buffer,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<()> {
        self.inner.route(step, w, x, routing)?;
        self.probe.after(&mut self.inner, Stage::Route, step, &mut routing.weights)
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
        self.inner.experts(step, w, x, routing, mix, streams)?;
        self.probe.after(&mut self.inner, Stage::Experts, step, streams)
    }

    fn head(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HeadWeights<B::Weight>,
        output: &B::Weight,
        streams: &B::Buffer,
        logits: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.head(step, w, output, streams, logits)?;
        self.probe.after(&mut self.inner, Stage::Head, step, logits)
    }

    fn keep_streams(
        &mut self,
        step: &Step<B::Buffer>,
        streams: &B::Buffer,
        hidden: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.inner.keep_streams(step, streams, hidden)?;
        self.probe.after(&mut self.inner, Stage::KeepStreams, step, &mut hidden.data)
    }

    fn draft_embed(
        &mut self,
        step: &Step<B::Buffer>,
        w: &DraftEmbedWeights<B::Weight>,
        table: &B::Weight,
        hidden: &Rows<B::Buffer>,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.draft_embed(step, w, table, hidden, streams)?;
        self.probe.after(&mut self.inner, Stage::DraftEmbed, step, streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_rows_are_different_visible_ascending_and_not_always_the_same() {
        let random = RandomSelect::new(64, 1);
        let draws: Vec<Vec<u32>> = (0..50).map(|pos| random.draw(pos, 100)).collect();
        for rows in &draws {
            assert_eq!(rows.len(), 64);
            assert!(rows.is_sorted_by(|a, b| a < b) && rows[63] < 100, "{rows:?}");
        }
        assert!(draws.windows(2).all(|pair| pair[0] != pair[1]));
        let mut hits = [0; 100];
        draws.iter().flatten().for_each(|&row| hits[row as usize] += 1);
        assert!(hits.iter().all(|&n| n > 10), "every row has its chance: {hits:?}");
        assert_eq!(random.draw(0, 100), draws[0]);
        assert_ne!(RandomSelect::new(64, 2).draw(0, 100), draws[0]);
    }
}
