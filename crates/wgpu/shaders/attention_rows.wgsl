// attend of long steps on cooperative matrices (model.md 5.2, 5.3).
//   attend_rows: grid (groups of 32 heads, rows, 1), eight subgroups
// Of eight subgroups each has 64 of the 512 columns: it multiplies its columns of the heads with its columns of 16 rows, all add up
// their scores, and it sums its columns of the rows by their shares: nobody needs another's columns.
// Shares are taken against a score of reference, a head's highest when it was set. It is moved, and sums with it, when a score
// exceeds it by e^8: float16 holds shares up to there.

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> window: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<u32>;
@group(0) @binding(4) var<storage, read> selected: array<u32>;
@group(0) @binding(5) var<storage, read> values: array<f32>;
@group(0) @binding(6) var<storage, read> rope: array<f32>;
@group(0) @binding(7) var<storage, read_write> heads: array<vec4<f32>>;

const SUMS = 256u; // sixteen by sixteen of several squares
const SLACK = 8.0;
const STRIDE = 18u; // fours of 64 columns, padded so that eight rows lie in different banks
const SHARE_STRIDE = 6u; // fours of 16 shares, padded alike

const PAIRS = 256u / THREADS; // of scores, that an invocation has
const ITEMS = 32u / LANES; // halves of a subgroup's rows that a lane brings

//if SCALARS
var<workgroup> slices: array<f16, 4u * 8u * 16u * STRIDE>; // [subgroup][row][column]
var<workgroup> shares: array<f16, 4u * 32u * SHARE_STRIDE>; // [head][row]

fn set_slice(at_four: u32, v: vec4<f32>) {
    let at = 4u * at_four;
    slices[at] = f16(v.x); slices[at + 1u] = f16(v.y); slices[at + 2u] = f16(v.z); slices[at + 3u] = f16(v.w);
}
fn set_shares(head: u32, four: u32, v: vec4<f32>) {
    let at = 4u * (head * SHARE_STRIDE + four);
    shares[at] = f16(v.x); shares[at + 1u] = f16(v.y); shares[at + 2u] = f16(v.z); shares[at + 3u] = f16(v.w);
}
//else
var<workgroup> slices: array<vec4<f16>, 8u * 16u * STRIDE>; // [subgroup][row][column / 4]
var<workgroup> shares: array<vec4<f16>, 32u * SHARE_STRIDE>; // [head][row / 4]

fn set_slice(at: u32, v: vec4<f32>) { slices[at] = vec4<f16>(v); }
fn set_shares(head: u32, four: u32, v: vec4<f32>) { shares[head * SHARE_STRIDE + four] = vec4<f16>(v); }
//end
var<workgroup> factors: array<f32, 32>; // by which a head's sums change
// Whether any does. Sixteen bytes, as all variables here have a multiple of: matrices are stored behind it.
var<workgroup> moved: vec4<u32>;

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

// Item `item` of 32 of a subgroup: row item / 2 of the block.
fn put_slice(raw: Raw, subgroup: u32, item: u32) {
    let to = (16u * subgroup + item / 2u) * STRIDE + 8u * (item & 1u);
    if (subgroup == 7u) {
        for (var i = 0u; i < 8u; i += 1u) {
            set_slice(to + i, vec4<f32>(unpack2x16float(raw.words[2u * i]), unpack2x16float(raw.words[2u * i + 1u])));
        }
        return;
    }
    let scale = exp2_of(i32((raw.scale >> (8u * (subgroup & 3u))) & 0xffu) - 127) * E4M3_UNIT;
    for (var i = 0u; i < 8u; i += 1u) { set_slice(to + i, scale * e4m3_units(raw.words[i])); }
}

@compute @workgroup_size(THREADS)
fn attend_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = wg.y;
    let s = step[row];
    let total = visible(s.pos);
    let first_head = 32u * wg.x;
    let subgroup = tid / LANES;
    let lane = tid % LANES;
    let slice = 16u * subgroup * STRIDE;
    let own = 256u * subgroup; // of `sums`
    // Heads, by way of the subgroup's slice: sixteen at a time.
//each h 2
    for (var i = 0u; i < ITEMS; i += 1u) {
        let item = LANES * i + lane;
        let head = min(first_head + 16u * $hu + item / 2u, N_HEAD - 1u);
        let src = (row * N_HEAD + head) * (HEAD / 4u) + 16u * subgroup + 8u * (item & 1u);
        for (var c = 0u; c < 8u; c += 1u) { set_slice(slice + item / 2u * STRIDE + 8u * (item & 1u) + c, q[src + c]); }
    }
    workgroupBarrier();
//each m SIXTEEN
//each k SIXTY_FOUR
    let q$h$m$k = coopLoadT<Left>(&slices[FOUR * (slice + SIDE * $mu * STRIDE + SIDE / 4u * $ku)], FOUR * STRIDE);
    var o$h$m$k = Sums();
//end
//end
    workgroupBarrier();
//end
    // Of each pair of scores: head and rows of the block.
    let pair = tid & 7u;
    var reference: array<f32, PAIRS>;
    var weight: array<f32, PAIRS>;
    var score: array<vec2<f32>, PAIRS>;
    var raw: array<Raw, ITEMS>;
    if (tid == 0u) { moved.x = 0u; }
    for (var i = 0u; i < ITEMS; i += 1u) {
        let item = LANES * i + lane;
        raw[i] = fetch(row, s, min(item / 2u, total - 1u), subgroup, item & 1u);
    }
    for (var j = 0u; j < total; j += 16u) {
        for (var i = 0u; i < ITEMS; i += 1u) { put_slice(raw[i], subgroup, LANES * i + lane); }
        workgroupBarrier();
        for (var i = 0u; i < ITEMS; i += 1u) {
            let item = LANES * i + lane;
            raw[i] = fetch(row, s, min(j + 16u + item / 2u, total - 1u), subgroup, item & 1u);
        }
//each h 2
//each m SIXTEEN
//each r SIXTEEN
        var s$h$m$r = Sums();
//end
//end
//end
//each k SIXTY_FOUR
//each r SIXTEEN
        let k$k$r = coopLoad<Right>(&slices[FOUR * (slice + SIDE * $ru * STRIDE + SIDE / 4u * $ku)], FOUR * STRIDE);
//each h 2
//each m SIXTEEN
        s$h$m$r = coopMultiplyAdd(q$h$m$k, k$k$r, s$h$m$r);
//end
//end
//end
//end
        // Sixteen heads at a time.
//each h 2
//each m SIXTEEN
//each r SIXTEEN
        coopStoreT(s$h$m$r, &sums[own + SIDE * $mu * 16u + SIDE * $ru], 16u);
//end
//end
        workgroupBarrier();
        for (var c = 0u; c < PAIRS; c += 1u) {
            let head = (tid + THREADS * c) / 8u;
            if (head / 16u == $hu) {
                var sum = vec2<f32>();
                for (var i = 0u; i < 8u; i += 1u) {
                    let at = 256u * i + 16u * (head & 15u) + 2u * pair;
                    sum += vec2<f32>(sums[at], sums[at + 1u]);
                }
                score[c] = SCORE_SCALE * sum;
            }
        }
        workgroupBarrier();
//end
        for (var c = 0u; c < PAIRS; c += 1u) {
            let head = (tid + THREADS * c) / 8u;
            if (j + 2u * pair >= total) { score[c].x = -3.4e38; }
            if (j + 2u * pair + 1u >= total) { score[c].y = -3.4e38; }
            var top = max(score[c].x, score[c].y);
            top = max(top, subgroupShuffleXor(top, 1u));
            top = max(top, subgroupShuffleXor(top, 2u));
            top = max(top, subgroupShuffleXor(top, 4u));
            var factor = 1.0;
            if (j == 0u) {
                reference[c] = top;
            } else if (top > reference[c] + SLACK) {
                factor = exp(reference[c] - top);
                reference[c] = top;
                moved.x = 1u;
            }
            if (pair == 0u) { factors[head] = factor; }
            let share = exp(score[c] - reference[c]);
            weight[c] = fma(weight[c], factor, share.x + share.y);
            let other = subgroupShuffleXor(share, 1u);
            if ((pair & 1u) == 0u) { set_shares(head, pair / 2u, vec4<f32>(share, other)); }
        }
        if (workgroupUniformLoad(&moved).x != 0u) {
//each h 2
//each m SIXTEEN
//each k SIXTY_FOUR
            coopStoreT(o$h$m$k, &sums[own], SIDE);
            workgroupBarrier();
            for (var i = lane; i < SQUARE; i += LANES) { sums[own + i] *= factors[16u * $hu + SIDE * $mu + i / SIDE]; }
            workgroupBarrier();
            o$h$m$k = coopLoadT<Sums>(&sums[own], SIDE);
            workgroupBarrier();
//end
//end
//end
            if (tid == 0u) { moved.x = 0u; }
        }
//each r SIXTEEN
        {
//each h 2
//each m SIXTEEN
            let p$h$m = coopLoadT<Left>(&shares[FOUR * ((16u * $hu + SIDE * $mu) * SHARE_STRIDE + SIDE / 4u * $ru)], FOUR * SHARE_STRIDE);
//end
//end
//each k SIXTY_FOUR
            let v$k = coopLoadT<Right>(&slices[FOUR * (slice + SIDE * $ru * STRIDE + SIDE / 4u * $ku)], FOUR * STRIDE);
//each h 2
//each m SIXTEEN
            o$h$m$k = coopMultiplyAdd(p$h$m, v$k, o$h$m$k);
//end
//end
//end
        }
//end
        workgroupBarrier();
    }
    for (var c = 0u; c < PAIRS; c += 1u) {
        let head = (tid + THREADS * c) / 8u;
        var whole = weight[c];
        whole += subgroupShuffleXor(whole, 1u);
        whole += subgroupShuffleXor(whole, 2u);
        whole += subgroupShuffleXor(whole, 4u);
        if (pair == 0u) {
            let sink = values[args.sinks + min(first_head + head, N_HEAD - 1u)];
            let top = max(reference[c], sink);
            let share = exp(reference[c] - top);
            factors[head] = share / fma(whole, share, exp(sink - top));
        }
    }
    workgroupBarrier();
//each h 2
//each m SIXTEEN
//each k SIXTY_FOUR
    coopStoreT(o$h$m$k, &sums[own], SIDE);
    workgroupBarrier();
    hand_out(row, first_head, 16u * $hu + SIDE * $mu, 16u * subgroup + SIDE / 4u * $ku, own, lane, s.pos);
    workgroupBarrier();
//end
//end
//end
}

// A square's sums: heads from `place` of the workgroup's 32 on, of SIDE columns, counted in fours, from `column` on.
fn hand_out(row: u32, first_head: u32, place: u32, column: u32, at: u32, lane: u32, pos: u32) {
    for (var i = lane; i < SQUARE / 4u; i += LANES) {
        let head = place + i / (SIDE / 4u);
        if (first_head + head < N_HEAD) {
            let four = column + i % (SIDE / 4u);
            var v = factors[head] * sums_at(at + 4u * i);
            if (four >= NOPE / 4u) {
                let pair = args.rope + 2u * (four - NOPE / 4u);
                v = vec4<f32>(rotated_back(v.xy, rope[pair], pos), rotated_back(v.zw, rope[pair + 1u], pos));
            }
            heads[(row * N_HEAD + first_head + head) * (HEAD / 4u) + four] = v;
        }
    }
}
