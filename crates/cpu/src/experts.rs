//! Stage `experts`: the routed experts grouped by expert, the shared expert's second half, and the post step (model.md 8).

use ds4_model::{ExpertWeights, HC, Routing, Step};
use rayon::prelude::*;

use crate::dot::{Matrix, Out, Product, run};
use crate::hc::{MIX, hc_post};
use crate::norm::swiglu;
use crate::{Buffer, Cpu, Weight};

pub(crate) fn experts(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
    mix: &Buffer,
    streams: &mut Buffer,
) {
    let (s, n, used) = (&cpu.shape, step.n, cpu.shape.n_expert_used);
    let ids = routing.ids.view::<u32>(n * used);
    let weights = routing.weights.floats(n * used);
    let groups = Groups::new(ids, s.n_expert);
    let rows: Vec<&[f32]> = x.floats(n * s.n_embd).chunks(s.n_embd).collect();
    let xs: Vec<&[f32]> = groups.order.iter().map(|&pair| rows[pair as usize / used]).collect();

    let (mut mid, mut up) = (vec![0f32; n * used * s.ff_dim], vec![0f32; n * used * s.ff_dim]);
    let mut products = groups.products(w.gate.matrix(), &xs, &mut mid, s.ff_dim);
    products.extend(groups.products(w.up.matrix(), &xs, &mut up, s.ff_dim));
    run(cpu.isa, &products);
    drop(products);
    mid.par_chunks_mut(s.ff_dim).zip(up.par_chunks(s.ff_dim)).zip(&groups.order).for_each(|((mid, up), &pair)| {
        // The routing weight goes in before the down projection: importance statistics assume it.
        let weight = weights[pair as usize];
        mid.iter_mut().zip(up).for_each(|(gate, up)| *gate = swiglu(*gate, *up, w.clamp) * weight);
    });

    let mids: Vec<&[f32]> = mid.chunks(s.ff_dim).collect();
    let shared: Vec<&[f32]> = routing.shared.floats(n * s.ff_dim).chunks(s.ff_dim).collect();
    let (mut down, mut y) = (vec![0f32; n * used * s.n_embd], vec![0f32; n * s.n_embd]);
    let mut products = groups.products(w.down.matrix(), &mids, &mut down, s.n_embd);
    products.push(Product::new(w.shared_down.matrix(), &shared, Out::new(&mut y, s.n_embd)));
    run(cpu.isa, &products);
    drop(products);
    // In routing order, whatever order the experts ran in.
    y.par_chunks_mut(s.n_embd).zip(groups.place.par_chunks(used)).for_each(|(y, places)| {
        for (d, y) in y.iter_mut().enumerate() {
            let routed = places.iter().fold(0.0, |sum, &place| sum + down[place as usize * s.n_embd + d]);
            *y += routed;
        }
    });
    hc_post(&y, mix.floats(n * MIX), streams.floats_mut(n * HC * s.n_embd), s.n_embd);
}

/// Token-expert pairs sorted by expert.
struct Groups {
    /// Pairs (`token * used + k`) in group order.
    order: Vec<u32>,
    /// Where each pair stands in `order`.
    place: Vec<u32>,
    /// Expert and its pairs' range in `order`.
    runs: Vec<(usize, std::ops::Range<usize>)>,
}

impl Groups {
    fn new(ids: &[u32], n_expert: usize) -> Groups {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_by_key(|&pair| ids[pair as usize]);
        let mut place = vec![0; ids.len()];
        order.iter().enumerate().for_each(|(at, &pair)| place[pair as usize] = at as u32);
        let mut runs: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        for (at, &pair) in order.iter().enumerate() {
            let expert = ids[pair as usize] as usize;
            debug_assert!(expert < n_expert, "ids come from the router or a checked table");
            match runs.last_mut() {
                Some((last, run)) if *last == expert => run.end = at + 1,
                _ => runs.push((expert, at..at + 1)),
            }
        }
        Groups { order, place, runs }
    }

    /// One product per expert in use; results stand in group order.
    fn products<'a>(&self, w: &'a Matrix, xs: &'a [&'a [f32]], out: &'a mut [f32], width: usize) -> Vec<Product<'a>> {
        let mut rest = out;
        let product = |(expert, run): &(usize, std::ops::Range<usize>)| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(run.len() * width);
            rest = later;
            Product { w, rows: expert * width..(expert + 1) * width, xs: &xs[run.clone()], out: Out::new(now, width) }
        };
        self.runs.iter().map(product).collect()
    }
}
