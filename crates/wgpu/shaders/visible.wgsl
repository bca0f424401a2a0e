// Which rows a query sees, for both ways of `attend`. They are numbered: first the window, oldest first, then compressed rows,
// ascending.

struct Args {
    ratio: u32, parts: u32, first_row: u32, per_part: u32,
    window_per_slot: u32, rows_per_slot: u32, sinks: u32, rope: u32,
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;

const SCORE_SCALE = 0.044194173824159216; // 1 / sqrt(512)

fn raw_rows(pos: u32) -> u32 { return min(pos + 1u, WINDOW); }
fn compressed_rows(pos: u32) -> u32 { return select(0u, (pos + 1u) / max(args.ratio, 1u), args.ratio != 0u); }
fn chooses(pos: u32) -> bool { return args.ratio == 4u && compressed_rows(pos) > TOP_K; }
fn visible(pos: u32) -> u32 { return raw_rows(pos) + select(compressed_rows(pos), TOP_K, chooses(pos)); }
