use proptest::prelude::*;

use super::*;

const VOCAB: usize = 129_280;

/// Deterministic logits with a spread like a model's.
fn logits(n: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut random = XorShift::new(seed);
    (0..n).map(|_| (0..4).map(|_| random.next() as f32 - 0.5).sum::<f32>() * spread).collect()
}

/// The rules of prompt.md section 20 by a full sort: kept ids with their weights, in the order they are drawn in.
fn kept_by_sorting(params: &SamplingParams, logits: &[f32]) -> Vec<(u32, f32)> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|z| ((z - best) / params.temperature).exp())).collect();
    let by_logit = |id: u32| logits[id as usize];
    all.sort_by(|a, b| by_logit(b.0).total_cmp(&by_logit(a.0)).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k.min(1024) as usize);
    }
    let top_p = if params.top_p > 0.0 && params.top_p <= 1.0 { params.top_p } else { 1.0 };
    let mass: f64 = all.iter().map(|e| f64::from(e.1)).sum();
    let mut kept = Vec::new();
    let mut sum = 0.0;
    for (id, weight) in all {
        if weight < params.min_p || (top_p < 1.0 && sum >= f64::from(top_p) * mass) {
            break;
        }
        sum += f64::from(weight);
        kept.push((id, weight));
    }
    if params.top_k == 0 && top_p == 1.0 {
        kept.sort_by_key(|e| e.0);
    }
    kept
}

fn draw_by_sorting(params: &SamplingParams, logits: &[f32], share: f64) -> u32 {
    let kept = kept_by_sorting(params, logits);
    let mut rest = share * kept.iter().map(|e| f64::from(e.1)).sum::<f64>();
    for (id, weight) in &kept {
        rest -= f64::from(*weight);
        if rest <= 0.0 {
            return *id;
        }
    }
    kept.last().unwrap().0
}

#[test]
fn the_random_source_is_the_published_one() {
    // xorshift64* of state 1: 1 ^ 1<<25 = 0x2000001, ^ >>27 unchanged, times the multiplier, top 24 bits.
    let product = 0x0200_0001_u64.wrapping_mul(0x2545_F491_4F6C_DD1D);
    assert_eq!(XorShift::new(1).next(), (product >> 40) as f64 / 16_777_216.0);
    assert_eq!(XorShift::new(0).next(), XorShift::new(0x9E37_79B9_7F4A_7C15).next());
}

#[test]
fn temperature_zero_takes_the_best_and_the_lowest_id_among_equals() {
    let mut sampler = Sampler::new(SamplingParams::greedy());
    assert_eq!(sampler.sample(&[0.0, 2.0, 1.0, 2.0], false).unwrap(), 1);
    assert_eq!(sampler.sample(&[-0.0, 0.0], false).unwrap(), 0);
}

#[test]
fn a_greedy_draw_leaves_the_random_state_alone() {
    let z = logits(500, 3, 4.0);
    let mut plain = Sampler::new(SamplingParams { seed: 9, ..SamplingParams::default() });
    let mut forced = plain.clone();
    forced.sample(&z, true).unwrap();
    assert_eq!(plain.sample(&z, false).unwrap(), forced.sample(&z, false).unwrap());
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 15, 16, 39] {
            let mut z = logits(40, 1, 1.0);
            z[at] = bad;
            let error = Sampler::new(SamplingParams::default()).sample(&z, false).unwrap_err();
            assert_eq!(error, Error::Logits { id: at as u32, found: bad.to_string() });
            assert!(TokenLogprobs::of(&z, 0, 1).is_err());
        }
    }
    assert!(Sampler::new(SamplingParams::default()).sample(&[], false).is_err());
}

#[test]
fn penalties_count_generated_tokens_only() {
    let params = SamplingParams { presence_penalty: 0.5, frequency_penalty: 0.25, ..SamplingParams::greedy() };
    let mut sampler = Sampler::new(params);
    let z = [3.0, 2.3, 1.0];
    // 3.0, then 3.0 - 0.75 < 2.3, then 2.25 > 2.3 - 0.75, then 3.0 - 1.0 > 1.55, then 1.75, then 1.55 and 1.5.
    let drawn: Vec<u32> = (0..6).map(|_| sampler.sample(&z, false).unwrap()).collect();
    assert_eq!(drawn, [0, 1, 0, 0, 0, 1]);
}

#[test]
fn a_repetition_penalty_counts_every_id_once() {
    let mut sampler = Sampler::new(SamplingParams { repetition_penalty: 1.5, ..SamplingParams::greedy() });
    let z = [3.0, 2.3, -1.0, -1.2];
    // 3.0, then 3.0 / 1.5 < 2.3, then 2.0 > 2.3 / 1.5, and so for ever.
    let drawn: Vec<u32> = (0..5).map(|_| sampler.sample(&z, false).unwrap()).collect();
    assert_eq!(drawn, [0, 1, 0, 0, 0]);
    let mut negative = Sampler::new(SamplingParams { repetition_penalty: 1.5, ..SamplingParams::greedy() });
    let drawn: Vec<u32> = (0..3).map(|_| negative.sample(&z[2..], false).unwrap()).collect();
    assert_eq!(drawn, [0, 1, 0], "-1.0, then -1.2 > -1.5, then -1.5 > -1.8");
}

#[test]
fn a_bias_is_added_before_the_draw() {
    let mut sampler = Sampler::new(SamplingParams::greedy()).with_bias(vec![(2, 100.0), (0, -100.0)]);
    assert_eq!(sampler.sample(&[3.0, 2.0, 1.0], false), Ok(2));
}

#[test]
fn parameters_outside_their_range_are_refused() {
    let bad = [
        SamplingParams { temperature: -0.1, ..SamplingParams::default() },
        SamplingParams { temperature: f32::NAN, ..SamplingParams::default() },
        SamplingParams { min_p: 1.5, ..SamplingParams::default() },
        SamplingParams { top_p: f32::INFINITY, ..SamplingParams::default() },
        SamplingParams { repetition_penalty: 0.0, ..SamplingParams::default() },
        SamplingParams { presence_penalty: 2.5, ..SamplingParams::default() },
        SamplingParams { frequency_penalty: f32::NEG_INFINITY, ..SamplingParams::default() },
    ];
    for params in bad {
        assert!(matches!(params.validate(), Err(Error::Parameter { .. })), "{params:?}");
    }
    assert_eq!(SamplingParams::default().validate(), Ok(()));
}

#[test]
fn log_probabilities_are_a_log_softmax_with_ranks() {
    let z = [0.5, 2.0, -1.0, 2.0];
    let mass: f64 = z.iter().map(|&z: &f32| f64::from(z).exp()).sum();
    let of = TokenLogprobs::of(&z, 3, 3).unwrap();
    assert_eq!(of.rank, 1);
    assert_eq!(of.top.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 3, 0]);
    for candidate in of.top.iter().chain([&of.chosen]) {
        let expected = f64::from(candidate.logit) - mass.ln();
        assert!((f64::from(candidate.logprob) - expected).abs() < 1e-6);
    }
    assert_eq!(TokenLogprobs::of(&z, 4, 0), Err(Error::UnknownToken { id: 4, n_vocab: 4 }));
    assert_eq!(TokenLogprobs::of(&z, 0, 9).unwrap().top.len(), 4);
}

#[test]
fn shares_of_the_draws_follow_the_probabilities() {
    let z = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
    let mut sampler = Sampler::new(SamplingParams { min_p: 0.0, seed: 7, ..SamplingParams::default() });
    let mut times = [0_u32; 3];
    for _ in 0..16_000 {
        times[sampler.sample(&z, false).unwrap() as usize] += 1;
    }
    for (times, expected) in times.into_iter().zip([2000.0, 4000.0, 10_000.0]) {
        assert!((f64::from(times) - expected).abs() < 250.0, "{times} of {expected}");
    }
}

#[test]
fn a_full_vocabulary_gives_the_same_draws_as_sorting_it() {
    let z = logits(VOCAB, 11, 12.0);
    let cuts = [(0, 1.0, 0.05), (0, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.9, 0.05), (40, 1.0, 0.0), (5000, 0.5, 0.0)];
    for (top_k, top_p, min_p) in cuts {
        let params = SamplingParams { top_k, top_p, min_p, seed: 5, ..SamplingParams::default() };
        let mut sampler = Sampler::new(params);
        let mut random = XorShift::new(5);
        for _ in 0..3 {
            let expected = draw_by_sorting(&params, &z, random.next());
            assert_eq!(sampler.sample(&z, false).unwrap(), expected, "{params:?}");
        }
    }
}

/// Small vocabularies with many equal logits, where every cut and tie matters.
fn params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(1.0_f32), Just(1e-30), 0.01..3.0_f32, Just(100.0)];
    let top_p = prop_oneof![Just(1.0_f32), 0.0..1.0_f32, Just(-1.0), Just(2.0), Just(1e-9)];
    let min_p = prop_oneof![Just(0.0_f32), Just(1.0), 0.0..1.0_f32];
    let top_k = prop_oneof![Just(0_u32), 1..12_u32, Just(3000)];
    (temperature, top_p, min_p, top_k, any::<u64>()).prop_map(|(temperature, top_p, min_p, top_k, seed)| {
        SamplingParams { temperature, top_p, top_k, min_p, seed, ..SamplingParams::default() }
    })
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![4 => (-6..6_i32).prop_map(|z| z as f32 * 0.5), 2 => -20.0..20.0_f32, 1 => Just(f32::MAX), 1 => Just(f32::MIN)];
    prop::collection::vec(value, 1..80)
}

proptest! {
    #[test]
    fn draws_are_those_of_a_full_sort(z in any_logits(), params in params()) {
        let mut sampler = Sampler::new(params);
        let mut random = XorShift::new(params.seed);
        for _ in 0..4 {
            let expected = draw_by_sorting(&params, &z, random.next());
            prop_assert_eq!(sampler.sample(&z, false).unwrap(), expected);
        }
    }

    #[test]
    fn the_best_k_are_those_of_a_full_sort(z in any_logits(), k in 0..90_usize) {
        let mut ids: Vec<u32> = (0..z.len() as u32).collect();
        ids.sort_by(|&a, &b| z[b as usize].partial_cmp(&z[a as usize]).unwrap().then(a.cmp(&b)));
        ids.truncate(k);
        prop_assert_eq!(best_of(&z, k).iter().map(|e| e.id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn whatever_the_logits_a_draw_is_an_id_or_an_error(
        z in prop::collection::vec(any::<f32>(), 0..40), params in params(), greedy: bool,
    ) {
        let finite = !z.is_empty() && z.iter().all(|z| z.is_finite());
        match Sampler::new(params).sample(&z, greedy) {
            Ok(id) => prop_assert!(finite && (id as usize) < z.len()),
            Err(_) => prop_assert!(!finite),
        }
    }
}
