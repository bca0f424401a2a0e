// embed: the token's row in each stream.   grid: (rows, 1, 1), 256 invocations
//   table rows of F16 (two values a word) or float32; a table larger than a binding comes in parts, one dispatch each
//   streams [rows][HC][N_EMBD]

struct Args { table: u32, first: u32, count: u32, format: u32 } // first word of the part, its first token, its tokens
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> streams: array<f32>;

@compute @workgroup_size(256)
fn embed(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let token = step[wg.x].token;
    if (token < args.first || token >= args.first + args.count) { return; }
    for (var d = 2u * tid; d < N_EMBD; d += 512u) {
        let at = (token - args.first) * N_EMBD + d;
        var v: vec2<f32>;
        if (args.format == FORMAT_F16) {
            v = unpack2x16float(words[args.table + at / 2u]);
        } else {
            v = vec2<f32>(bitcast<f32>(words[args.table + at]), bitcast<f32>(words[args.table + at + 1u]));
        }
        for (var h = 0u; h < HC; h += 1u) {
            let to = (wg.x * HC + h) * N_EMBD + d;
            streams[to] = v.x;
            streams[to + 1u] = v.y;
        }
    }
}
