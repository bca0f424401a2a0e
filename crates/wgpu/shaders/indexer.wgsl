// select: score(c) = sum_h w_h max(0, q_h . key_c) for every visible row, then the exact TOP_K of each query, ascending, ties to
// the lower row (model.md 7). Queries that see no more than TOP_K rows are left alone. With FUSED the last workgroup of a row that
// scores chooses as well.

struct Args { per_slot: u32, stride: u32, first_row: u32, pad: u32 } // scores [row - first_row][stride]
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;

fn candidates(row: u32) -> u32 {
    let visible = (step[row].pos + 1u) / 4u;
    return select(0u, visible, visible > TOP_K);
}

//if SCORE
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> keys: array<u32>;
//if FUSED
@coherent @group(0) @binding(4) var<storage, read_write> scores: array<f32>;
@group(0) @binding(5) var<storage, read_write> selected: array<u32>;
@group(0) @binding(6) var<storage, read_write> tickets: array<atomic<u32>>;
//else
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;
//end

const KEY_STRIDE = 33u; // fours of a key, and one more so that lanes fall into different banks
var<workgroup> decoded: array<vec4<f32>, 32u * KEY_STRIDE>;
var<workgroup> shares: array<f32, 256>;

// grid: (ceil(longest / 32), rows, 1), 256 invocations: 32 keys by 8 shares of the heads
@compute @workgroup_size(256)
fn index_score(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = args.first_row + wg.y;
    let n = candidates(row);
    if (32u * wg.x >= n) { return; }
    let key = tid & 31u;
    let share = tid / 32u;
    let c = min(32u * wg.x + key, n - 1u);
    let src = (step[row].slot * args.per_slot + c) * INDEX_WORDS;
    for (var w = 2u * share; w < 2u * share + 2u; w += 1u) {
        let codes = keys[src + w];
        let scale = exp2_of(i32((keys[src + 16u] >> (8u * (w / 4u))) & 0xffu) - 127);
        for (var i = 0u; i < 2u; i += 1u) {
            let four = codes >> (16u * i);
            decoded[key * KEY_STRIDE + 2u * w + i] = scale * vec4<f32>(e2m1_value(four & 15u), e2m1_value((four >> 4u) & 15u),
                e2m1_value((four >> 8u) & 15u), e2m1_value((four >> 12u) & 15u));
        }
    }
    workgroupBarrier();
    var score = 0.0;
    for (var h = share; h < N_INDEX_HEAD; h += 8u) {
        let at = (row * N_INDEX_HEAD + h) * (INDEX / 4u);
        var sum = vec4<f32>();
        for (var d = 0u; d < INDEX / 4u; d += 1u) { sum = fma(q[at + d], decoded[key * KEY_STRIDE + d], sum); }
        score = fma(weights[row * N_INDEX_HEAD + h], max(sum.x + sum.y + sum.z + sum.w, 0.0), score);
    }
    shares[tid] = score;
    workgroupBarrier();
    if (tid < 32u && 32u * wg.x + tid < n) {
        var total = 0.0;
        for (var i = 0u; i < 8u; i += 1u) { total += shares[32u * i + tid]; }
        scores[wg.y * args.stride + 32u * wg.x + tid] = total;
    }
//if FUSED
    if (is_last(row, 1u, (n + 31u) / 32u, tid)) { choose(row, n, wg.y * args.stride, tid); }
//end
}
//else
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> selected: array<u32>;
//end
//if CHOOSE
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> counts: array<vec2<u32>, 512>; // two of each invocation, so that one is filled while the other may still be read
var<workgroup> chosen: vec2<u32>; // digits of the threshold so far, and how many of its equals are still wanted

// Larger scores have larger keys.
fn order_of(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) != 0u);
}

// Sums over the invocations up to this one, and over all of them.
struct Sums { here: vec2<u32>, all: vec2<u32> }

fn sums_up_to(v: vec2<u32>, tid: u32) -> Sums {
    var sum = v;
    var side = 0u;
    for (var apart = 1u; apart < 256u; apart <<= 1u) {
        counts[side + tid] = sum;
        workgroupBarrier();
        if (tid >= apart) { sum += counts[side + tid - apart]; }
        side ^= 256u;
    }
    counts[side + tid] = sum;
    workgroupBarrier();
    let all = counts[side + 255u];
    workgroupBarrier();
    return Sums(sum, all);
}

// 256 invocations: the TOP_K-th largest key is found digit by digit, then each invocation gathers its stretch. Keys are read four
// at a time.
fn choose(row: u32, n: u32, src: u32, tid: u32) {
    if (tid == 0u) { chosen = vec2<u32>(0u, TOP_K); }
    for (var digit = 0u; digit < 4u; digit += 1u) {
        let shift = 24u - 8u * digit;
        atomicStore(&histogram[tid], 0u);
        workgroupBarrier();
        let prefix = chosen.x;
        let wanted = chosen.y;
        for (var c = tid; c < n; c += 1024u) {
//each i 4
            let key$i = order_of(scores[src + min(c + 256u * $iu, n - 1u)]);
//end
//each i 4
            if (c + 256u * $iu < n && (digit == 0u || (key$i >> (shift + 8u)) == prefix)) {
                atomicAdd(&histogram[(key$i >> shift) & 255u], 1u);
            }
//end
        }
        workgroupBarrier();
        let own = atomicLoad(&histogram[tid]);
        let sums = sums_up_to(vec2<u32>(own, 0u), tid);
        let above = sums.all.x - sums.here.x;
        if (above < wanted && wanted <= above + own) { chosen = vec2<u32>((prefix << 8u) | tid, wanted - above); }
        workgroupBarrier();
    }
    let threshold = chosen.x;
    let equals = chosen.y;
    let each = (n + 255u) / 256u;
    let begin = min(tid * each, n);
    let end = min(begin + each, n);
    var own = vec2<u32>();
    for (var c = begin; c < end; c += 4u) {
//each i 4
        let key$i = order_of(scores[src + min(c + $iu, end - 1u)]);
//end
//each i 4
        if (c + $iu < end) { own += vec2<u32>(u32(key$i > threshold), u32(key$i == threshold)); }
//end
    }
    var before = sums_up_to(own, tid).here - own;
    for (var c = begin; c < end; c += 4u) {
//each i 4
        let key$i = order_of(scores[src + min(c + $iu, end - 1u)]);
//end
//each i 4
        if (c + $iu < end) {
            if (key$i > threshold || (key$i == threshold && before.y < equals)) {
                selected[row * TOP_K + before.x + min(before.y, equals)] = c + $iu;
            }
            before += vec2<u32>(u32(key$i > threshold), u32(key$i == threshold));
        }
//end
    }
}
//if SCORE
//else
// grid: (1, rows, 1)
@compute @workgroup_size(256)
fn index_choose(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = args.first_row + wg.y;
    let n = candidates(row);
    if (n != 0u) { choose(row, n, wg.y * args.stride, tid); }
}
//end
//end
