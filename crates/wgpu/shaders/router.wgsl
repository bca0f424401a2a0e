// route: which experts a token goes to and how much each counts, and the shared expert's gated middle (model.md 8).
//   unit 0: the choice        1 and up: sixteen values each of the shared expert's middle
// Outputs of a row: router logits [N_EXPERT], shared gate [FF], shared up [FF].
//   grid: (rows, 1 + FF / 128, 1), 128 invocations: the choice, then the middle; with FUSED this is a part of `dense`

// First value of the bias, or first id of the table.
struct Finish { choice: u32, hashed: u32, clamp_at: f32, pad0: u32, pad1: u32, pad2: u32, pad3: u32, pad4: u32 }

const MIN_TOTAL = 6.103515625e-5; // floor of the sum of the chosen scores
const TOTAL = N_EXPERT + 2u * FF;

//if FUSED
@group(0) @binding(4) var<storage, read> step: array<StepRow>;
@coherent @group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read> choice: array<u32>;
@group(0) @binding(7) var<storage, read_write> ids: array<u32>;
@group(0) @binding(8) var<storage, read_write> weights: array<f32>;
@group(0) @binding(9) var<storage, read_write> shared_mid: array<f32>;
@group(0) @binding(10) var<storage, read_write> tickets: array<atomic<u32>>;
//else
struct Args { own: Finish }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> choice: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> shared_mid: array<f32>;
//end

var<workgroup> scores: array<f32, N_EXPERT>;
const FOURS = (N_EXPERT + 15u) / 16u * 4u;
var<workgroup> biased: array<vec4<f32>, FOURS>;
var<workgroup> best: array<u32, N_USED>;

fn finish_middle(row: u32, i: u32) {
    let at = row * TOTAL + N_EXPERT + i;
    shared_mid[row * FF + i] = swiglu(out[at], out[at + FF], args.own.clamp_at);
}

// How many of the four from `first` on are better than `own` of expert `e`.
fn better(v: vec4<f32>, first: u32, own: f32, e: u32) -> u32 {
    let lower = vec4<u32>(0u, 1u, 2u, 3u) + first < vec4<u32>(e);
    let ahead = select(vec4<u32>(), vec4<u32>(1u), (v > vec4<f32>(own)) | ((v == vec4<f32>(own)) & lower));
    return ahead.x + ahead.y + ahead.z + ahead.w;
}

fn finish_choice(row: u32, tid: u32) {
    for (var e = tid; e < 4u * FOURS; e += 128u) {
        if (e >= N_EXPERT) {
            biased[e / 4u][e % 4u] = -3.4e38;
            continue;
        }
        let score = sqrt(softplus(out[row * TOTAL + e]));
        scores[e] = score;
        var sum = score;
        if (args.own.hashed == 0u) { sum += bitcast<f32>(choice[args.own.choice + e]); }
        biased[e / 4u][e % 4u] = sum;
    }
    workgroupBarrier();
    if (args.own.hashed != 0u) {
        if (tid < N_USED) { best[tid] = choice[args.own.choice + step[row].token * N_USED + tid]; }
    } else {
        // An expert's place is the number of better ones; equal sums go to the lower id.
        for (var e = tid; e < N_EXPERT; e += 128u) {
            let own = biased[e / 4u][e % 4u];
            var place = 0u;
            for (var f = 0u; f < FOURS; f += 4u) {
//each i 4
                place += better(biased[f + $iu], 4u * (f + $iu), own, e);
//end
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
    workgroupBarrier(); // the next row's scores take their place
}

//if FUSED
const UNITS = 1u + FF / 16u;

fn unit(m: u32) -> vec2<u32> {
    if (m < N_EXPERT) { return vec2<u32>(0u, N_EXPERT); }
    return vec2<u32>(1u + (m - N_EXPERT) % FF / 16u, 32u);
}

fn keep(row: u32, m: u32, y: f32) { out[row * TOTAL + m] = y; }

fn finish(row: u32, which: u32, tid: u32) {
    if (which == 0u) { finish_choice(row, tid); } else if (tid < 16u) { finish_middle(row, 16u * (which - 1u) + tid); }
}
//else
@compute @workgroup_size(128)
fn route(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.y == 0u) { finish_choice(wg.x, tid); } else { finish_middle(wg.x, 128u * (wg.y - 1u) + tid); }
}
//end
