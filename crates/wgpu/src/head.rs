//! Stages `attn_output` and `head`.

use ds4_model::{AttnOutputWeights, HeadWeights, Result, Step};

use crate::backend::Wgpu;
use crate::dense::{Matrix, Out, Product};
use crate::device::Buffer;
use crate::hc;
use crate::weight::Weight;

pub(crate) fn attn_output(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &AttnOutputWeights<Weight>,
    heads: &Buffer,
    mix: &Buffer,
    streams: &Buffer,
) -> Result<()> {
    let s = &gpu.shape;
    let (width, low_width, rank) = (s.n_head * s.head_dim, s.n_out_group * s.out_lora_dim, s.out_lora_dim);
    let low = gpu.scratch.low.clone();
    let grouped = Product { w: &w.a, to: 0, group: rank };
    let middle = Matrix { data: &low, stride: low_width };
    gpu.products(step.n, &[grouped], Matrix { data: heads, stride: width }, Out::Rows(middle))?;
    gpu.products(step.n, &[Product::new(&w.b, 0)], middle, Out::Post { streams, mix })
}

pub(crate) fn head(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &HeadWeights<Weight>,
    output: &Weight,
    streams: &Buffer,
    logits: &Buffer,
) -> Result<()> {
    if step.logits == 0 {
        return Ok(());
    }
    let (n_embd, n_vocab) = (gpu.shape.n_embd, gpu.shape.n_vocab);
    let site = hc::Site { mix: &w.mix, scale: &w.scale, base: &w.base, norm: &w.norm };
    let (x, unused) = (gpu.scratch.head.clone(), gpu.scratch.sums.clone());
    hc::collapse(gpu, step, &site, streams, (&x, &unused), [hc::HEAD_PRODUCTS, hc::HEAD_COLLAPSE, hc::HEAD_FUSED])?;
    let out = Out::Rows(Matrix { data: logits, stride: n_vocab });
    gpu.products(step.logits, &[Product::new(output, 0)], Matrix { data: &x, stride: n_embd }, out)
}
