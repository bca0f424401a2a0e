//! Stages `attn_output` and `head`: from heads back to streams, from streams to logits.

use ds4_model::{AttnOutputWeights, HeadWeights, Result, Step};

use crate::backend::{Cuda, small};
use crate::dense::{Family, Inputs, Post, Product};
use crate::device::Buffer;
use crate::hc;
use crate::weight::Weight;

pub(crate) fn attn_output(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &AttnOutputWeights<Weight>,
    heads: &Buffer,
    mix: &Buffer,
    streams: &Buffer,
) -> Result<()> {
    let s = &cuda.shape;
    let (width, groups, rank) = (s.n_head * s.head_dim, s.n_out_group, s.out_lora_dim);
    let (group_width, low_width) = (width / groups, groups * rank);
    let low = cuda.scratch.low.ptr();
    let products: Vec<Product<'_>> = (0..groups)
        .map(|g| Product {
            rows: (g * rank / 16, rank),
            x_at: g * group_width,
            out: low + (4 * g * rank) as u64,
            out_stride: low_width,
            ..Product::new(&w.a, 0)
        })
        .collect();
    cuda.dense(Family::Group, Inputs { x: heads.ptr(), width }, &products, step.n, small(step.n))?;
    let y = cuda.scratch.y.ptr();
    let (inputs, product) = (Inputs { x: low, width: low_width }, Product::new(&w.b, y));
    if small(step.n) {
        let post = Post { mix: mix.ptr(), streams: streams.ptr() };
        return cuda.dense_small(Family::Low, inputs, &[product], step.n, Some(post));
    }
    cuda.dense(Family::Low, inputs, &[product], step.n, false)?;
    hc::post(cuda, step.n, y, mix, streams)
}

pub(crate) fn head(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &HeadWeights<Weight>,
    output: &Weight,
    streams: &Buffer,
    logits: &Buffer,
) -> Result<()> {
    if step.logits == 0 {
        return Ok(());
    }
    let x = cuda.scratch.head.ptr();
    hc::head(cuda, step, w, streams, x)?;
    let n_embd = cuda.shape.n_embd;
    let inputs = Inputs { x, width: n_embd };
    cuda.dense_small(Family::Embd, inputs, &[Product::new(output, logits.ptr())], step.logits, None)
}
