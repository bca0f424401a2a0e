// The best token of each row of logits, as greedy decoding chooses it (model/src/best.rs): the highest logit, of equals the lowest id;
// or if some are no finite numbers, the lowest id of those.
//   best_part: grid (PARTS, rows, 1)     best_row: grid (rows, 1, 1)     256 invocations

struct Args { n_vocab: u32, pad0: u32, pad1: u32, pad2: u32 }
var<immediate> args: Args;

const PARTS = 32u;

//if PART
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> candidates: array<vec2<u32>>; // [row][part]: id, bits of the logit
//else
@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> best: array<vec2<u32>>;
//end

var<workgroup> found: array<vec2<u32>, 256>;

// Higher logits have higher keys, both zeros the same, and what is not finite the highest.
fn key_of(bits: u32) -> u32 {
    if ((bits & 0x7f800000u) == 0x7f800000u) { return 0xffffffffu; }
    if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) != 0u);
}

fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let ka = key_of(a.y);
    let kb = key_of(b.y);
    return select(b, a, ka > kb || (ka == kb && a.x < b.x));
}

// The best of all invocations, to the first.
fn best_of_all(own: vec2<u32>, tid: u32) -> vec2<u32> {
    found[tid] = own;
    workgroupBarrier();
    for (var apart = 128u; apart > 0u; apart >>= 1u) {
        if (tid < apart) { found[tid] = better(found[tid], found[tid + apart]); }
        workgroupBarrier();
    }
    return found[0];
}

//if PART
@compute @workgroup_size(256)
fn best_part(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let last = args.n_vocab - 1u;
    let src = wg.y * args.n_vocab;
    let begin = min(256u * wg.x + tid, last);
    var own = vec2<u32>(begin, logits[src + begin]);
    for (var id = begin; id <= last; id += 4u * 256u * PARTS) {
//each i 4
        let id$i = min(id + $iu * 256u * PARTS, last);
        let v$i = vec2<u32>(id$i, logits[src + id$i]);
//end
        own = better(own, better(better(v0, v1), better(v2, v3)));
    }
    let best = best_of_all(own, tid);
    if (tid == 0u) { candidates[wg.y * PARTS + wg.x] = best; }
}
//else
@compute @workgroup_size(256)
fn best_row(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let found = best_of_all(candidates[wg.x * PARTS + min(tid, PARTS - 1u)], tid);
    if (tid == 0u) { best[wg.x] = found; }
}
//end
