// route: which experts a token goes to and how much each counts, and the shared expert's gated middle (model.md 8).
//   grid: (rows, 1 + ceil(FF / 256), 1), 256 invocations: the choice, then 256 values each of the shared expert's middle
// Sums of a row: router logits [N_EXPERT], shared gate [FF], shared up [FF].

struct Args { choice: u32, hashed: u32, clamp_at: f32, pad: u32 } // first value of the bias, or first id of the table
var<immediate> args: Args;

const MIN_TOTAL = 6.103515625e-5; // floor of the sum of the chosen scores
const TOTAL = N_EXPERT + 2u * FF;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> choice: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> shared_mid: array<f32>;

var<workgroup> scores: array<f32, N_EXPERT>;
var<workgroup> biased: array<f32, N_EXPERT>;
var<workgroup> best: array<u32, N_USED>;

@compute @workgroup_size(256)
fn route(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = wg.x;
    if (wg.y > 0u) {
        let i = 256u * (wg.y - 1u) + tid;
        if (i < FF) {
            let at = row * TOTAL + N_EXPERT + i;
            shared_mid[row * FF + i] = swiglu(sums[at], sums[at + FF], args.clamp_at);
        }
        return;
    }
    for (var e = tid; e < N_EXPERT; e += 256u) {
        let score = sqrt(softplus(sums[row * TOTAL + e]));
        scores[e] = score;
        biased[e] = score;
        if (args.hashed == 0u) { biased[e] += bitcast<f32>(choice[args.choice + e]); }
    }
    workgroupBarrier();
    if (args.hashed != 0u) {
        if (tid < N_USED) { best[tid] = choice[args.choice + step[row].token * N_USED + tid]; }
    } else {
        // An expert's place is the number of better ones; equal sums go to the lower id.
        for (var e = tid; e < N_EXPERT; e += 256u) {
            let own = biased[e];
            var place = 0u;
            for (var other = 0u; other < N_EXPERT; other += 1u) {
                place += u32(biased[other] > own || (biased[other] == own && other < e));
            }
            if (place < N_USED) { best[place] = e; }
        }
    }
    workgroupBarrier();
    if (tid < N_USED) {
        var total = 0.0;
        for (var k = 0u; k < N_USED; k += 1u) { total += scores[best[k]]; }
        ids[row * N_USED + tid] = best[tid];
        weights[row * N_USED + tid] = scores[best[tid]] / max(total, MIN_TOTAL) * EXPERT_SCALE;
    }
}
