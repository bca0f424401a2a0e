//! What is run: synthetic models, and for each a script of steps that crosses every edge a device can stumble over. Numbers
//! of rows on both sides of the change from decode to prefill kernels, windows that fill, wrap and close, rows beyond the
//! selection limit, and sequences of different lengths side by side.

use ds4_model::{Limits, LogitRows, Shape, Span};
use ds4_synth::{Quant, Recipe, Tokens, preset};

/// A model and what it is put through.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) recipe: Recipe,
    /// With a draft block.
    pub(crate) draft: bool,
    pub(crate) limits: Limits,
    pub(crate) script: Script,
}

/// Steps in order.
#[derive(Default)]
pub(crate) struct Script {
    /// Tokens of every slot so far.
    pub(crate) len: Vec<u32>,
    pub(crate) steps: Vec<Step>,
}

pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) spans: Vec<Span>,
}

/// The token of a sequence at a position: every slot has a text of its own.
pub(crate) fn token(slot: u32, pos: u32, n_vocab: usize) -> u32 {
    (slot * 40_503 + pos).wrapping_mul(2_654_435_761) % n_vocab as u32
}

impl Script {
    /// Appends `len` tokens to each slot; of every span the last row has logits, or none.
    fn spans(&mut self, name: &str, spans: &[(u32, u32)], logits: LogitRows) {
        let span = |&(slot, len): &(u32, u32)| {
            let at = slot as usize;
            self.len.resize(self.len.len().max(at + 1), 0);
            let pos = self.len[at];
            self.len[at] += len;
            Span { slot, pos, len, logits }
        };
        let spans = spans.iter().map(span).collect();
        self.steps.push(Step { name: name.to_owned(), spans });
    }

    fn prefill(&mut self, spans: &[(u32, u32)]) {
        let rows: u32 = spans.iter().map(|(_, len)| len).sum();
        self.spans(&format!("{rows} rows in {} spans", spans.len()), spans, LogitRows::Last);
    }

    /// Takes a slot back by so many tokens.
    fn back(&mut self, slot: u32, tokens: u32) {
        self.len[slot as usize] -= tokens;
    }

    /// One token for each slot, `times` times.
    fn decode(&mut self, slots: std::ops::Range<u32>, times: usize) {
        let spans: Vec<_> = slots.map(|slot| (slot, 1)).collect();
        (0..times).for_each(|_| self.spans(&format!("decode of {}", spans.len()), &spans, LogitRows::Last));
    }

    /// Every edge with one number of rows or another; contexts of up to 640 tokens in 66 slots.
    fn edges() -> Script {
        let mut s = Script::default();
        s.prefill(&[(0, 300)]);
        s.decode(0..1, 5);
        s.spans("3 rows of one sequence", &[(0, 3)], LogitRows::All);
        // One short of the window, the window, and windows of four that are open, full and just begun.
        s.prefill(&[(1, 127), (2, 128), (3, 3), (4, 4), (5, 5)]);
        s.decode(1..6, 5);
        s.prefill(&[(6, 128)]);
        s.prefill(&[(6, 65)]);
        s.prefill(&[(6, 64)]);
        s.spans("32 rows of one sequence", &[(6, 32)], LogitRows::All);
        s.spans("8 rows of one sequence", &[(6, 8)], LogitRows::All);
        s.decode(0..8, 5);
        s.decode(0..32, 4);
        s.decode(0..64, 5);
        s.spans("65 rows, none with logits", &(0..65).map(|slot| (slot, 1)).collect::<Vec<_>>(), LogitRows::None);
        let mixed: Vec<_> = (0..8).map(|slot| (slot, 1)).chain([(65, 200)]).collect();
        s.prefill(&mixed);
        // The ring of the window wraps.
        s.prefill(&[(0, 160), (65, 140)]);
        s.decode(0..3, 2);
        s.back(0, 5);
        s.decode(0..1, 3);
        s
    }

    /// The same kinds of step with fewer of each.
    fn short() -> Script {
        let mut s = Script::default();
        s.prefill(&[(0, 66), (1, 3)]);
        s.decode(0..2, 4);
        s.prefill(&[(0, 60), (2, 70)]);
        s.spans("3 rows of one sequence", &[(0, 3)], LogitRows::All);
        s.decode(0..8, 2);
        s
    }

    fn long() -> Script {
        let mut s = Script::default();
        s.prefill(&[(0, 2048)]);
        s.decode(0..1, 4);
        s.prefill(&[(0, 1), (1, 2047)]);
        s.decode(0..2, 2);
        s
    }
}

/// What `device_suite` runs.
pub(crate) fn samples(quick: bool) -> Vec<Sample> {
    if quick {
        let limits = Limits { context: 256, slots: 8, max_rows: 160, rewind: 8 };
        let mut recipe = preset("tiny").expect("a preset");
        recipe.seed = 3;
        return vec![Sample {
            name: "tiny q2 with a draft block",
            recipe,
            draft: true,
            limits,
            script: Script::short(),
        }];
    }
    let limits = Limits { context: 768, slots: 66, max_rows: 320, rewind: 8 };
    let sample = |name, recipe: Recipe| Sample { name, recipe, draft: false, limits, script: Script::edges() };
    let tiny = |quant| preset("tiny").expect("a preset").quant(quant).seed(3);
    let mini = preset("mini").expect("a preset").seed(4);
    let long = Limits { context: 4096, slots: 2, max_rows: 2048, rewind: 8 };
    vec![
        Sample { draft: true, ..sample("tiny q2 with a draft block", tiny(Quant::Q2)) },
        sample("tiny q4", tiny(Quant::Q4)),
        sample("tiny mxfp4", tiny(Quant::Mxfp4)),
        sample("mini q2", mini.clone()),
        Sample { limits: long, script: Script::long(), ..sample("mini q2, long", mini) },
        sample("wide q2", wide(Quant::Q2)),
        sample("wide q4", wide(Quant::Q4)),
        sample("wide mxfp4", wide(Quant::Mxfp4)),
    ]
}

/// Heads and experts as many as the released model has in a group, every inner dimension a multiple of 256.
pub(crate) fn wide(quant: Quant) -> Recipe {
    let small = preset("mini").expect("a preset").shape;
    let shape = Shape {
        name: "DeepSeek V4 Wide, random weights".to_owned(),
        n_embd: 512,
        n_head: 64,
        q_lora_dim: 256,
        n_out_group: 8,
        out_lora_dim: 64,
        n_index_head: 64,
        index_top_k: 64,
        n_expert: 16,
        n_expert_used: 6,
        ff_dim: 512,
        ..small
    };
    Recipe::new(shape).tokens(Tokens::Pruned { merges: 16 }).quant(quant).seed(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_stay_inside_their_limits_and_reach_the_edges() {
        for sample in samples(false).into_iter().chain(samples(true)) {
            let Limits { context, slots, max_rows, .. } = sample.limits;
            assert!(sample.script.len.len() <= slots as usize && sample.script.len.iter().all(|&len| len <= context));
            let (mut rows, mut selects) = (Vec::new(), false);
            for step in &sample.script.steps {
                let n = step.spans.iter().map(|span| span.len).sum::<u32>();
                assert!(n <= max_rows, "{}: {}", sample.name, step.name);
                assert!(step.spans.iter().map(Span::logit_rows).sum::<usize>() <= 64, "a step is not cut");
                selects |= step.spans.iter().any(|span| (span.pos + 1) / 4 > sample.recipe.shape.index_top_k as u32);
                rows.push(n);
            }
            assert!(selects, "{}: decode beyond the selection limit", sample.name);
            assert!(rows.iter().any(|&n| n > 64) && rows.contains(&1) || sample.limits.slots == 8, "{}", sample.name);
        }
        let rows = |script: &Script| -> Vec<u32> {
            script.steps.iter().map(|step| step.spans.iter().map(|span| span.len).sum()).collect()
        };
        let edges = rows(&Script::edges());
        assert!([1, 3, 8, 32, 64, 65, 128, 300].iter().all(|n| edges.contains(n)), "{edges:?}");
        assert!(rows(&Script::long()).contains(&2048));
    }
}
