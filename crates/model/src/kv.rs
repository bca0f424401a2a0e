//! The cache described once: rows, rings and frontiers of every layer, and every byte a sequence owns. Owns layout; the
//! engine owns lifetime. Everything is a function of the position: nothing here counts.

use std::ops::Range;

use crate::{HC, Limits, MAX_DRAFT, Result, Shape, SlotId};

/// How activations are rounded on their way into the cache, and how cache rows are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Nothing is rounded; rows are float32. The arithmetic of other public engines, and the sharpest test.
    Plain,
    /// The roundings the model was trained with (E4M3 rows, E2M1 indexer); rows are float32.
    Qat,
    /// The same roundings; rows are held as codes, exponents and a float16 rotary tail (session.md section 3).
    #[default]
    Stored,
}

impl Numerics {
    /// Whether the trained roundings are applied.
    pub fn rounds(self) -> bool {
        self != Numerics::Plain
    }

    /// Bytes of a window or compressed row of `head_dim` values. Stored: E4M3 codes, one exponent per 64, padding to an
    /// even offset, rotary tail.
    pub fn row_bytes(self, s: &Shape) -> usize {
        match self {
            Numerics::Plain | Numerics::Qat => 4 * s.head_dim,
            Numerics::Stored => (s.nope_dim() + s.nope_dim() / 64).next_multiple_of(2) + 2 * s.n_rot,
        }
    }

    /// Bytes of an indexer row of `index_dim` values. Stored: E2M1 codes, one exponent per 32.
    pub fn index_row_bytes(self, s: &Shape) -> usize {
        match self {
            Numerics::Plain | Numerics::Qat => 4 * s.index_dim,
            Numerics::Stored => s.index_dim / 2 + s.index_dim / 32,
        }
    }
}

/// Compressed rows visible to the query at `pos`: every window that has closed, including one that closes at `pos` itself.
pub fn visible_rows(pos: u32, ratio: u32) -> u32 {
    (pos + 1).checked_div(ratio).unwrap_or(0)
}

/// A table of equal rows for each slot: append-only by row number, or a ring by position.
#[derive(Debug)]
pub struct Rows<Buf> {
    /// `[slots][per_slot][row_bytes]`
    pub data: Buf,
    /// Rows of one slot.
    pub per_slot: usize,
    /// Bytes of one row.
    pub row_bytes: usize,
}

impl<Buf> Rows<Buf> {
    /// Byte offset of row `row` of an append-only table.
    pub fn at(&self, slot: SlotId, row: u32) -> usize {
        (slot as usize * self.per_slot + row as usize) * self.row_bytes
    }

    /// Byte offset of the row of `pos` in a ring.
    pub fn ring_at(&self, slot: SlotId, pos: u32) -> usize {
        (slot as usize * self.per_slot + pos as usize % self.per_slot) * self.row_bytes
    }
}

/// Cache of one layer.
#[derive(Debug)]
pub struct LayerKv<Buf> {
    /// Ring of raw rows; as many as a chunk of `max_rows` needs beside the window.
    pub window: Rows<Buf>,
    /// Present if the layer compresses.
    pub compressed: Option<Compressed<Buf>>,
}

/// Compressed rows of one layer and the open windows they grow from.
#[derive(Debug)]
pub struct Compressed<Buf> {
    /// 4 or 128.
    pub ratio: u32,
    /// Append-only attention rows.
    pub rows: Rows<Buf>,
    /// Ring of float32 compressor inputs by position, `[value w][gate w]`, position bias added (model.md 6.3).
    pub frontier: Rows<Buf>,
    /// Present if the layer has an indexer.
    pub index: Option<IndexRows<Buf>>,
}

/// Indexer rows of one layer.
#[derive(Debug)]
pub struct IndexRows<Buf> {
    /// Append-only index rows.
    pub rows: Rows<Buf>,
    /// Ring of the indexer compressor's inputs.
    pub frontier: Rows<Buf>,
}

/// What a draft block needs of every sequence. Its rows follow the rule of rings: row `p`, made from the state of `p` and the
/// token at `p + 1`, has the place of `p`.
#[derive(Debug)]
pub struct DraftKv<Buf> {
    /// The block's own window.
    pub layer: LayerKv<Buf>,
    /// Ring of float32 states after the last main layer, `[HC][n_embd]`, by position.
    pub hidden: Rows<Buf>,
}

/// The whole cache.
#[derive(Debug)]
pub struct Cache<Buf> {
    /// One entry per main layer.
    pub layers: Vec<LayerKv<Buf>>,
    /// Present if a draft block is loaded.
    pub draft: Option<DraftKv<Buf>>,
}

/// Which table of a layer a region lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Window,
    Rows,
    Frontier,
    IndexRows,
    IndexFrontier,
    DraftWindow,
    DraftHidden,
}

/// A contiguous run of bytes that a sequence owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Main layer; 0 for the draft block's tables.
    pub(crate) layer: usize,
    pub(crate) table: Table,
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// A run of a saved state, in the order of [`crate::Model::save`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Append-only rows of one table, each closed by the last of `ratio` tokens.
    Rows {
        /// Tokens of a row.
        ratio: u32,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// So many bytes of a window or of a frontier: the state at its end alone.
    Tail(usize),
}

impl Part {
    /// Bytes of the run in a state saved for `rows`.
    pub fn bytes(self, rows: &Range<u32>) -> usize {
        match self {
            Part::Rows { ratio, row_bytes } => (rows.end / ratio - rows.start / ratio) as usize * row_bytes,
            Part::Tail(bytes) => bytes,
        }
    }
}

/// Sizes of the cache for a shape, limits and numerics.
#[derive(Clone, Debug)]
pub struct KvLayout {
    shape: Shape,
    limits: Limits,
    numerics: Numerics,
    draft: bool,
}

impl KvLayout {
    /// The layout that [`KvLayout::allocate`] follows. `draft` says whether there is a draft block.
    pub fn new(shape: &Shape, limits: Limits, numerics: Numerics, draft: bool) -> KvLayout {
        KvLayout { shape: shape.clone(), limits, numerics, draft }
    }

    /// Asks `alloc` for every buffer of the cache; the argument is a size in bytes.
    pub fn allocate<Buf>(&self, alloc: &mut dyn FnMut(usize) -> Result<Buf>) -> Result<Cache<Buf>> {
        let layers = self.shape.ratios.iter().map(|&ratio| self.layer(ratio, alloc)).collect::<Result<_>>()?;
        let draft = if self.draft { Some(self.draft_tables(alloc)?) } else { None };
        Ok(Cache { layers, draft })
    }

    fn draft_tables<Buf>(&self, alloc: &mut dyn FnMut(usize) -> Result<Buf>) -> Result<DraftKv<Buf>> {
        // What a draft sees, what can be taken back, and what drafts write ahead.
        let per_slot = self.shape.window + (self.limits.rewind + MAX_DRAFT) as usize;
        let mut ring = |row_bytes: usize| -> Result<Rows<Buf>> {
            Ok(Rows { data: alloc(self.limits.slots as usize * per_slot * row_bytes)?, per_slot, row_bytes })
        };
        let window = ring(self.numerics.row_bytes(&self.shape))?;
        Ok(DraftKv { layer: LayerKv { window, compressed: None }, hidden: ring(4 * HC * self.shape.n_embd)? })
    }

    /// First position whose row a draft can still ask for after positions up to `end - 1` were evaluated: it sees `window`
    /// rows, and the model may go back by `rewind` before it drafts. States are needed from there on too.
    pub(crate) fn draft_from(&self, end: u32) -> u32 {
        end.saturating_sub(self.limits.rewind).saturating_sub(self.shape.window as u32)
    }

    fn layer<Buf>(&self, ratio: u32, alloc: &mut dyn FnMut(usize) -> Result<Buf>) -> Result<LayerKv<Buf>> {
        let (s, slots) = (&self.shape, self.limits.slots as usize);
        let mut table = |per_slot: usize, row_bytes: usize| {
            Ok(Rows { data: alloc(slots * per_slot * row_bytes)?, per_slot, row_bytes })
        };
        let row_bytes = self.numerics.row_bytes(s);
        let window = table(self.window_rows(), row_bytes)?;
        if ratio == 0 {
            return Ok(LayerKv { window, compressed: None });
        }
        let capacity = (self.limits.context / ratio) as usize + 1;
        let frontier = |table: &mut dyn FnMut(usize, usize) -> Result<Rows<Buf>>, width: usize| {
            table(self.frontier_rows(ratio), 2 * 4 * Shape::pooled_dim(ratio, width))
        };
        let compressed = Compressed {
            ratio,
            rows: table(capacity, row_bytes)?,
            frontier: frontier(&mut table, s.head_dim)?,
            index: if ratio == 4 {
                let rows = table(capacity, self.numerics.index_row_bytes(s))?;
                Some(IndexRows { rows, frontier: frontier(&mut table, s.index_dim)? })
            } else {
                None
            },
        };
        Ok(LayerKv { window, compressed: Some(compressed) })
    }

    /// A chunk stores all of its rows before its queries read: window and chunk must fit together.
    fn window_rows(&self) -> usize {
        self.shape.window + self.limits.max_rows.max(self.limits.rewind) as usize
    }

    /// The open window, for ratio 4 the one before it, and what can be taken back.
    fn frontier_rows(&self, ratio: u32) -> usize {
        let overlap = if ratio == 4 { 2 } else { 1 };
        overlap * ratio as usize + self.limits.rewind as usize
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> u64 {
        let mut total = 0;
        self.allocate(&mut |bytes| {
            total += bytes as u64;
            Ok(())
        })
        .expect("counting bytes cannot fail");
        total
    }

    /// Size of a saved state: see [`crate::Model::save`].
    pub fn state_bytes(&self, rows: Range<u32>) -> u64 {
        let empty: Cache<()> = self.allocate(&mut |_| Ok(())).expect("describing the cache cannot fail");
        self.regions(&empty, 0, rows).iter().map(|region| region.len as u64).sum()
    }

    /// What a saved state of the first `n` tokens is made of: see [`crate::Model::parts`].
    pub fn parts(&self, n: u32) -> Vec<Part> {
        let empty: Cache<()> = self.allocate(&mut |_| Ok(())).expect("describing the cache cannot fail");
        let rows = |layer: usize, index: bool| {
            let c = empty.layers[layer].compressed.as_ref().expect("the region comes from a layer that compresses");
            let table = if index { &c.index.as_ref().expect("the region is of an indexer").rows } else { &c.rows };
            Part::Rows { ratio: c.ratio, row_bytes: table.row_bytes }
        };
        let part = |region: Region| match region.table {
            Table::Rows => rows(region.layer, false),
            Table::IndexRows => rows(region.layer, true),
            _ => Part::Tail(region.len),
        };
        self.all_regions(&empty, 0, n..n).into_iter().map(part).collect()
    }

    /// Every byte that the first `rows.end` tokens of a slot own, append-only rows from token `rows.start` on; in the
    /// order of saved states: by layer, then window, frontier, rows, index frontier, index rows, then by position; last the
    /// draft block's window and the state of the last token.
    pub(crate) fn regions<Buf>(&self, cache: &Cache<Buf>, slot: SlotId, rows: Range<u32>) -> Vec<Region> {
        let mut out = self.all_regions(cache, slot, rows);
        out.retain(|region| region.len > 0);
        out
    }

    /// The same with a region for every table of append-only rows, even if it is empty.
    fn all_regions<Buf>(&self, cache: &Cache<Buf>, slot: SlotId, rows: Range<u32>) -> Vec<Region> {
        let n = rows.end;
        let mut out = Vec::new();
        for (layer, kv) in cache.layers.iter().enumerate() {
            let mut ring = |table: Table, t: &Rows<Buf>, positions: Range<u32>| {
                ring_runs(t, slot, positions).for_each(|(at, len)| out.push(Region { layer, table, at, len }));
            };
            ring(Table::Window, &kv.window, n.saturating_sub(self.shape.window as u32)..n);
            let Some(c) = &kv.compressed else { continue };
            let overlap = if c.ratio == 4 { c.ratio } else { 0 };
            let open = (n / c.ratio * c.ratio).saturating_sub(overlap)..n;
            let closed = rows.start / c.ratio..n / c.ratio;
            let append = |table: Table, t: &Rows<Buf>| Region {
                layer,
                table,
                at: t.at(slot, closed.start),
                len: closed.len() * t.row_bytes,
            };
            ring(Table::Frontier, &c.frontier, open.clone());
            out.push(append(Table::Rows, &c.rows));
            if let Some(index) = &c.index {
                ring_runs(&index.frontier, slot, open)
                    .for_each(|(at, len)| out.push(Region { layer, table: Table::IndexFrontier, at, len }));
                out.push(append(Table::IndexRows, &index.rows));
            }
        }
        if let Some(draft) = &cache.draft {
            let last = n.saturating_sub(1);
            let window = n.saturating_sub(self.shape.window as u32)..last;
            for (table, t, positions) in
                [(Table::DraftWindow, &draft.layer.window, window), (Table::DraftHidden, &draft.hidden, last..n)]
            {
                ring_runs(t, slot, positions).for_each(|(at, len)| out.push(Region { layer: 0, table, at, len }));
            }
        }
        out
    }
}

/// The contiguous byte runs of consecutive positions in a ring.
fn ring_runs<Buf>(t: &Rows<Buf>, slot: SlotId, positions: Range<u32>) -> impl Iterator<Item = (usize, usize)> {
    let mut pos = positions.start;
    std::iter::from_fn(move || {
        if pos >= positions.end {
            return None;
        }
        let until_wrap = (t.per_slot - pos as usize % t.per_slot) as u32;
        let run = until_wrap.min(positions.end - pos);
        let at = t.ring_at(slot, pos);
        pos += run;
        Some((at, run as usize * t.row_bytes))
    })
}

impl<Buf> Cache<Buf> {
    /// The buffer that a region lies in.
    pub(crate) fn table_mut(&mut self, region: &Region) -> &mut Buf {
        let (compressed, draft) =
            ("the region comes from a layer that compresses", "the region comes from a draft block");
        let layer = &mut self.layers[region.layer];
        let rows = match region.table {
            Table::Window => &mut layer.window,
            Table::Rows => &mut layer.compressed.as_mut().expect(compressed).rows,
            Table::Frontier => &mut layer.compressed.as_mut().expect(compressed).frontier,
            Table::IndexRows => &mut layer.compressed.as_mut().and_then(|c| c.index.as_mut()).expect(compressed).rows,
            Table::IndexFrontier => {
                &mut layer.compressed.as_mut().and_then(|c| c.index.as_mut()).expect(compressed).frontier
            }
            Table::DraftWindow => &mut self.draft.as_mut().expect(draft).layer.window,
            Table::DraftHidden => &mut self.draft.as_mut().expect(draft).hidden,
        };
        &mut rows.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(numerics: Numerics) -> KvLayout {
        KvLayout::new(&Shape::flash(), Limits { context: 1 << 20, ..Limits::default() }, numerics, false)
    }

    #[test]
    fn stored_rows_have_the_sizes_of_the_specification() {
        let s = Shape::flash();
        assert_eq!(Numerics::Stored.row_bytes(&s), 584);
        assert_eq!(Numerics::Stored.index_row_bytes(&s), 68);
    }

    #[test]
    fn a_float32_state_has_the_size_of_the_reference_payload() {
        // session.md section 2 at 2048 tokens, less header, ids, logits and counters, and less the frontier rows that
        // an aligned state does not need: all of ratio 128, half of ratio 4.
        let reference = 52_184_460 - 52 - 8192 - 517_120 - 344;
        let unneeded = 10_485_760 + (1_376_256 + 344_064) / 2;
        assert_eq!(layout(Numerics::Qat).state_bytes(0..2048), reference - unneeded);
    }

    #[test]
    fn a_tail_leaves_out_the_append_only_rows() {
        let layout = layout(Numerics::Stored);
        let rows = 21 * 512 * (584 + 68) + 20 * 16 * 584;
        assert_eq!(layout.state_bytes(0..2048) - layout.state_bytes(2048..2048), rows);
    }

    #[test]
    fn the_parts_of_a_state_have_its_size_from_any_token_on() {
        for numerics in [Numerics::Qat, Numerics::Stored] {
            for rows in [0..0, 0..3, 0..129, 2..131, 2048..2048, 2048..5000] {
                let parts = layout(numerics).parts(rows.end);
                let bytes: usize = parts.iter().map(|part| part.bytes(&rows)).sum();
                assert_eq!(bytes as u64, layout(numerics).state_bytes(rows));
                assert_eq!(parts.iter().filter(|part| matches!(part, Part::Rows { .. })).count(), 21 * 2 + 20);
            }
        }
    }

    #[test]
    fn a_draft_block_adds_its_window_and_the_last_state() {
        let limits = Limits { context: 1 << 20, ..Limits::default() };
        let with = KvLayout::new(&Shape::flash(), limits, Numerics::Stored, true);
        let added = |n: u32| with.state_bytes(0..n) - layout(Numerics::Stored).state_bytes(0..n);
        let state = 4 * 4 * 4096;
        assert_eq!([0, 1, 2, 2048].map(added), [0, state, 584 + state, 127 * 584 + state]);
    }

    #[test]
    fn a_ring_run_is_cut_where_the_ring_wraps() {
        let ring = Rows { data: (), per_slot: 10, row_bytes: 4 };
        let runs: Vec<_> = ring_runs(&ring, 1, 7..14).collect();
        assert_eq!(runs, [(4 * 17, 12), (4 * 10, 16)]);
    }
}
