// attend of long steps on cooperative matrices (model.md 5.2, 5.3); rows are numbered as in `attention.wgsl`.
//   attend_rows: grid (groups of 32 heads, rows, 1), 256 invocations
// Of eight subgroups each has 64 of the 512 columns: it multiplies its columns of the heads with its columns of 16 rows, all add up
// their scores, and it sums its columns of the rows by their shares. So rows pass through memory that a subgroup has for itself.
// Shares are taken against a score of reference, a head's highest when it was set. It is moved, and sums with it, when a score
// exceeds it by e^8: float16 holds shares up to there.

struct Args {
    ratio: u32, parts: u32, first_row: u32, per_part: u32,
    window_per_slot: u32, rows_per_slot: u32, sinks: u32, rope: u32,
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> window: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<u32>;
@group(0) @binding(4) var<storage, read> selected: array<u32>;
@group(0) @binding(5) var<storage, read> values: array<f32>;
@group(0) @binding(6) var<storage, read> rope: array<f32>;
@group(0) @binding(7) var<storage, read_write> heads: array<vec4<f32>>;

const SCORE_SCALE = 0.044194173824159216; // 1 / sqrt(512)
const SLACK = 8.0;
const STRIDE = 18u; // fours of 64 columns, padded so that eight rows lie in different banks
const SHARE_STRIDE = 12u; // pairs of 16 shares, padded alike

var<workgroup> slices: array<vec4<f16>, 8u * 16u * STRIDE>; // [subgroup][row][column / 4]
var<workgroup> scores: array<f32, 4096>; // [subgroup][head][row], of its columns alone; then squares of sums
var<workgroup> shares: array<vec2<f16>, 32u * SHARE_STRIDE>; // [head][row / 2]
var<workgroup> factors: array<f32, 32>; // by which a head's sums change
var<workgroup> moved: u32;

fn compressed_rows(pos: u32) -> u32 { return select(0u, (pos + 1u) / max(args.ratio, 1u), args.ratio != 0u); }
fn chooses(pos: u32) -> bool { return args.ratio == 4u && compressed_rows(pos) > TOP_K; }
fn raw_rows(pos: u32) -> u32 { return min(pos + 1u, WINDOW); }

// Half a subgroup's columns of a visible row: eight words of codes and their scale, or of the rotated tail sixteen of float16.
struct Raw { words: array<u32, 16>, scale: u32 }

fn fetch(row: u32, s: StepRow, j: u32, subgroup: u32, half: u32) -> Raw {
    var raw: Raw;
    let tail = subgroup == 7u;
    let place = select(16u * subgroup + 8u * half, NOPE / 4u + 2u + 16u * half, tail);
    let own = raw_rows(s.pos);
    if (j < own) {
        let src = (s.slot * args.window_per_slot + (s.pos + 1u - own + j) % args.window_per_slot) * ROW_WORDS;
        for (var i = 0u; i < 8u; i += 1u) { raw.words[i] = window[src + place + i]; }
        if (tail) { for (var i = 8u; i < 16u; i += 1u) { raw.words[i] = window[src + place + i]; } }
        raw.scale = window[src + NOPE / 4u + subgroup / 4u];
        return raw;
    }
    var c = j - own;
    if (chooses(s.pos)) { c = selected[row * TOP_K + c]; }
    let src = (s.slot * args.rows_per_slot + c) * ROW_WORDS;
    for (var i = 0u; i < 8u; i += 1u) { raw.words[i] = rows[src + place + i]; }
    if (tail) { for (var i = 8u; i < 16u; i += 1u) { raw.words[i] = rows[src + place + i]; } }
    raw.scale = rows[src + NOPE / 4u + subgroup / 4u];
    return raw;
}

// Four codes of E4M3, 2^-8 times their values: fields have the order of float16's.
fn e4m3_four(w: u32) -> vec4<f32> {
    let low = ((w & 0x80u) << 8u) | ((w & 0x7fu) << 7u) | ((w & 0x8000u) << 16u) | ((w & 0x7f00u) << 15u);
    let high = ((w >> 8u) & 0x8000u) | ((w >> 9u) & 0x3f80u) | (w & 0x80000000u) | ((w & 0x7f000000u) >> 1u);
    return vec4<f32>(unpack2x16float(low), unpack2x16float(high));
}

fn put_slice(raw: Raw, subgroup: u32, lane: u32) {
    let to = (16u * subgroup + lane / 2u) * STRIDE + 8u * (lane & 1u);
    if (subgroup == 7u) {
        for (var i = 0u; i < 8u; i += 1u) {
            slices[to + i] = vec4<f16>(vec4<f32>(unpack2x16float(raw.words[2u * i]), unpack2x16float(raw.words[2u * i + 1u])));
        }
        return;
    }
    let scale = exp2_of(i32((raw.scale >> (8u * (subgroup & 3u))) & 0xffu) - 119);
    for (var i = 0u; i < 8u; i += 1u) { slices[to + i] = vec4<f16>(scale * e4m3_four(raw.words[i])); }
}

@compute @workgroup_size(256)
fn attend_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = wg.y;
    let s = step[row];
    let total = raw_rows(s.pos) + select(compressed_rows(s.pos), TOP_K, chooses(s.pos));
    let first_head = 32u * wg.x;
    let subgroup = tid / 32u;
    let lane = tid & 31u;
    let slice = 16u * subgroup * STRIDE;
    let square = 512u * subgroup;
    // Heads, by way of the subgroup's slice.
//each m 2
    {
        let head = min(first_head + 16u * $mu + lane / 2u, N_HEAD - 1u);
        let src = (row * N_HEAD + head) * (HEAD / 4u) + 16u * subgroup + 8u * (lane & 1u);
        for (var i = 0u; i < 8u; i += 1u) { slices[slice + lane / 2u * STRIDE + 8u * (lane & 1u) + i] = vec4<f16>(q[src + i]); }
    }
    workgroupBarrier();
//each k 4
    let q$m$k = coopLoadT<coop_mat16x16<f16, A>>(&slices[slice + 4u * $ku], STRIDE);
//end
    workgroupBarrier();
//each j 4
    var o$m$j = coop_mat16x16<f32, C>();
//end
//end
    // Of a score: its head and two rows of the block.
    let head = tid / 8u;
    let pair = tid & 7u;
    var reference = -3.4e38;
    var weight = 0.0;
    if (tid == 0u) { moved = 0u; }
    var raw = fetch(row, s, min(lane / 2u, total - 1u), subgroup, lane & 1u);
    for (var j = 0u; j < total; j += 16u) {
        put_slice(raw, subgroup, lane);
        subgroupBarrier();
        raw = fetch(row, s, min(j + 16u + lane / 2u, total - 1u), subgroup, lane & 1u);
        {
            var s0 = coop_mat16x16<f32, C>();
            var s1 = coop_mat16x16<f32, C>();
//each k 4
            let k$k = coopLoad<coop_mat16x16<f16, B>>(&slices[slice + 4u * $ku], STRIDE);
            s0 = coopMultiplyAdd(q0$k, k$k, s0);
            s1 = coopMultiplyAdd(q1$k, k$k, s1);
//end
            coopStoreT(s0, &scores[square], 16u);
            coopStoreT(s1, &scores[square + 256u], 16u);
        }
        workgroupBarrier();
        var score = vec2<f32>();
        for (var i = 0u; i < 8u; i += 1u) {
            let at = 512u * i + 16u * head + 2u * pair;
            score += vec2<f32>(scores[at], scores[at + 1u]);
        }
        score *= SCORE_SCALE;
        if (j + 2u * pair >= total) { score.x = -3.4e38; }
        if (j + 2u * pair + 1u >= total) { score.y = -3.4e38; }
        var top = max(score.x, score.y);
        top = max(top, subgroupShuffleXor(top, 1u));
        top = max(top, subgroupShuffleXor(top, 2u));
        top = max(top, subgroupShuffleXor(top, 4u));
        var factor = 1.0;
        if (top > reference + SLACK || j == 0u) {
            factor = exp(reference - top);
            reference = top;
            if (j != 0u) { moved = 1u; }
        }
        if (pair == 0u) { factors[head] = factor; }
        let share = exp(score - reference);
        weight = fma(weight, factor, share.x + share.y);
        shares[head * SHARE_STRIDE + pair] = vec2<f16>(share);
        if (workgroupUniformLoad(&moved) != 0u) {
//each m 2
//each j 4
            coopStoreT(o$m$j, &scores[square], 16u);
            workgroupBarrier();
            for (var i = lane; i < 256u; i += 32u) { scores[square + i] *= factors[16u * $mu + i / 16u]; }
            workgroupBarrier();
            o$m$j = coopLoadT<coop_mat16x16<f32, C>>(&scores[square], 16u);
            workgroupBarrier();
//end
//end
            if (tid == 0u) { moved = 0u; }
        }
        {
            let p0 = coopLoadT<coop_mat16x16<f16, A>>(&shares[0], SHARE_STRIDE);
            let p1 = coopLoadT<coop_mat16x16<f16, A>>(&shares[16u * SHARE_STRIDE], SHARE_STRIDE);
//each j 4
            let v$j = coopLoadT<coop_mat16x16<f16, B>>(&slices[slice + 4u * $ju], STRIDE);
            o0$j = coopMultiplyAdd(p0, v$j, o0$j);
            o1$j = coopMultiplyAdd(p1, v$j, o1$j);
//end
        }
        subgroupBarrier();
    }
    weight += subgroupShuffleXor(weight, 1u);
    weight += subgroupShuffleXor(weight, 2u);
    weight += subgroupShuffleXor(weight, 4u);
    workgroupBarrier(); // all have scored
    if (pair == 0u) {
        let sink = values[args.sinks + min(first_head + head, N_HEAD - 1u)];
        let top = max(reference, sink);
        let share = exp(reference - top);
        factors[head] = share / fma(weight, share, exp(sink - top));
    }
    workgroupBarrier();
//each m 2
//each j 4
    coopStoreT(o$m$j, &scores[square], 16u);
    subgroupBarrier();
    hand_out(row, first_head + 16u * $mu, 16u * subgroup + 4u * $ju, 16u * $mu, square, lane, s.pos);
    subgroupBarrier();
//end
//end
}

// Sixteen heads' sums of sixteen columns, of fours from `column` on.
fn hand_out(row: u32, first_head: u32, column: u32, first_factor: u32, square: u32, lane: u32, pos: u32) {
    for (var i = lane; i < 64u; i += 32u) {
        let head = first_head + i / 4u;
        if (head < N_HEAD) {
            let at = square + 4u * i;
            let four = column + (i & 3u);
            var v = factors[first_factor + i / 4u] * vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
            if (four >= NOPE / 4u) {
                let pair = args.rope + 2u * (four - NOPE / 4u);
                v = vec4<f32>(rotated_back(v.xy, rope[pair], pos), rotated_back(v.zw, rope[pair + 1u], pos));
            }
            heads[(row * N_HEAD + head) * (HEAD / 4u) + four] = v;
        }
    }
}
