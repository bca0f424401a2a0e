//! Help pages: text only.

use crate::failure::usage_hint;
use crate::flags::BACKENDS;

/// The page for a topic; `None` is the short page.
pub(crate) fn page(topic: Option<&str>) -> anyhow::Result<String> {
    let Some(topic) = topic else { return Ok(SHORT.to_owned()) };
    if topic == "all" {
        return Ok(TOPICS.iter().fold(SHORT.to_owned(), |all, (_, text)| all + "\n" + text));
    }
    if LATER.contains(&topic) {
        return Ok(format!("{topic}: not in this build\n"));
    }
    match TOPICS.iter().find(|(name, _)| *name == topic) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => Err(usage_hint(format!("unknown help topic: {topic}"), SHORT.trim_end())),
    }
}

/// Name, version, commit and devices.
pub(crate) fn version() -> String {
    let commit = option_env!("DS4_COMMIT").unwrap_or("unknown");
    format!("ds4 {} (commit {commit}, backends: {})\n", env!("CARGO_PKG_VERSION"), BACKENDS.join(", "))
}

const SHORT: &str = "\
usage: ds4 [OPTIONS]                    chat in a terminal
       ds4 [OPTIONS] -p TEXT            answer one prompt
       ds4 [OPTIONS] < FILE             answer the prompt on standard input
       ds4 COMMAND [OPTIONS]            server, quantize, synth, check, doctor, logits, compare, bench, plot, eval, kv: see
                                        ds4 COMMAND --help

  -m, --model FILE       GGUF file (default $DS4_MODEL, ds4flash.gguf, the miniature inside)
  -p, --prompt TEXT      one prompt; - reads standard input
      --prompt-file FILE one prompt from a file
  -sys, --system TEXT    system text; empty for none
  -c, --ctx N            context tokens (default 32768)
  -n, --tokens N         most tokens of an answer (default 50000)
      --think, --think-max, --nothink
      --json, --stream-json, --hide-thinking, --quiet, --raw
  -h, --help [TOPIC]     topics: runtime, sampling, thinking, commands, diagnostics, benchmark, evaluation,
                         all
      --version
";

const TOPICS: &[(&str, &str)] = &[
    ("runtime", RUNTIME),
    ("sampling", SAMPLING),
    ("thinking", THINKING),
    ("commands", COMMANDS),
    ("diagnostics", DIAGNOSTICS),
    ("benchmark", BENCH),
    ("evaluation", EVAL),
];

/// Topics of other parts of the family.
const LATER: &[&str] = &["steering", "kv-cache", "api", "sessions", "tools"];

const RUNTIME: &str = "\
runtime
  -m, --model FILE       GGUF file
      --mtp FILE         GGUF file with the model's draft block; answers stay the same
  -c, --ctx N            context tokens (default 32768, less if the model was made for less)
  -t, --threads N        host threads (default: all)
      --backend NAME     cpu, cuda, vulkan, metal (--cpu and so on are short for them), or stub for tests of programs: a
                         script answers instead of the model. Default for a model file: metal on a Mac; elsewhere cuda
                         where there is a usable card, vulkan where there is a real GPU, else cpu. See ds4 doctor
      --device N         number of the card or GPU, default 0
      --stub-script FILE the stub's rules: JSON objects with \"when\" (a text of the last message) and \"reply\"; without a
                         script the stub repeats what it is told
      --quality          float32 cache rows: more memory, closest to the reference; on the CPU only
      --warm-weights     read the whole file before the start
      --prefill-chunk N  most tokens of one prefill step (default 512 on the CPU, 4096 on a card)
      --no-lock          answer or chat although another ds4 with a model file is running on this device
Ctrl+C stops the work after its current step, prints what there is and exits with 130; a second one, or one before the work
began, exits at once. SIGTERM does the same and exits with 143, also out of a chat.
";

const SAMPLING: &str = "\
sampling
      --temp F               0..100, default 1; 0 is greedy
      --top-p F              0..1, default 1 (off); 0 is off too
      --min-p F              0..1, default 0.05
      --top-k N              0..1024, default 0 (off)
      --presence-penalty F   -2..2, default 0
      --frequency-penalty F  -2..2, default 0
      --seed N               default from the clock; printed with the timing line
  -n, --tokens N             default 50000; never more than the free context
";

const THINKING: &str = "\
thinking
      --think                reason before the answer (default)
      --think-max            reason at length; needs a context of 393216 tokens
      --nothink              answer at once
      --think-budget-tokens N  close the reasoning after about N tokens; 0 is no budget (default)
      --hide-thinking        print the answer only
";

pub(crate) const COMMANDS: &str = "\
commands
  /help                      this list
  /think /think-max /nothink how much the model thinks in the turns that follow
  /read FILE                 the file's content as the next message
  /system TEXT               another system text
  /temp F, /seed N           sampling
  /ctx N                     another context size, same conversation
  /status                    model, mode, context used, speeds
  /save FILE, /load FILE     the conversation as JSON messages
  /undo, /retry              drop or regenerate the last turn
  /clear                     a fresh conversation
  /quit, /exit               leave; so does Ctrl+D
A message that begins with // starts with one slash. Ctrl+C stops an answer and keeps what there is of it.
";

const DIAGNOSTICS: &str = "\
diagnostics
      --inspect              what the model file holds; with --json as an object
      --dump-tokens          the prompt's tokens, control tokens recognised; reads no weights
      --dump-logprobs FILE   greedy continuation with the best log-probabilities of each step, as JSON
      --logprobs-top-k N     1..128, default 20
      --dump-logits FILE     logits of the next token, as JSON
      --perplexity-file FILE perplexity of a text after its first 32 tokens
      --score-file FILE      JSON lines {prompt, continuation}: how well the model predicts each continuation
";

pub(crate) const SYNTH: &str = "\
usage: ds4 synth OUT [OPTIONS]

Writes a model file with random weights.
      --preset NAME          flash, pro, mini or tiny (default mini)
      --layers N             main layers, instead of the preset's
      --experts N            routed experts, instead of the preset's
      --quant NAME           q2, q4, mxfp4 or f16 (default q2)
      --mtp                  write the draft-block support file of this shape to OUT instead of the main model: tensors
                             mtp.0.*, in storage types of its own, for use beside a main model
      --seed N               default 0; equal seeds give equal bytes
  -t, --threads N            default: all
      --sparse               weights are holes in the file: right size, all zero
      --quiet                no progress bar
";

pub(crate) const QUANTIZE: &str = "\
usage: ds4 quantize FOLDER OUT [OPTIONS]
       ds4 quantize FOLDER --compare-tensor NAME --with FILE.gguf [--imatrix FILE]

Converts a Hugging Face checkpoint (safetensors, config.json, tokenizer.json or tokenizer.json.gz) to a model file. Stopped or
out of space, it leaves OUT.part and OUT.part.journal; the same command continues them, a changed checkpoint or recipe starts
again.
      --quant NAME           f16, q8, q4, mxfp4 or q2: the routed experts' type (default q4); f16 is for every matrix
      --mtp                  write the draft block's support file instead of the main model
      --type FAMILY=TYPE     another type for a family: embedding, output, attention, shared, compressor, indexer, router,
                             hc, gate-up, down; f32, f16, bf16, q8_0, q4_k, q2_k, iq2_xxs or mxfp4; may be repeated
      --tensor PREFIX=TYPE   another type for matrices whose name begins so, such as blk.37.ffn_; may be repeated
      --imatrix FILE         importance of columns (.dat), for q4_k, q2_k and iq2_xxs
      --imatrix-strict       a tensor without an entry is an error, not converted without
      --name TEXT            general.name
      --dry-run              check everything but the weights, print what would be written
      --compare-tensor NAME  convert one tensor to the type it has in another file and compare the bytes
      --with FILE            that file
  -t, --threads N            default: all
      --quiet                no progress
";

pub(crate) const CHECK: &str = "\
usage: ds4 check KIND FILE... [OPTIONS]
       ds4 check device [OPTIONS]       a backend against the CPU: see ds4 check device --help
       ds4 check eval [OPTIONS]         what the model can do: see ds4 check eval --help

Compares this program with recorded truth; prints the first differences and a last line 'N passed, N failed'.
KIND
  tokenizer                  JSON lines {text, ids, ids_plain?}, or token_counts.json beside prompts/
  render                     JSON lines {messages, options, expected, ids?}, or test_input_N.json beside test_output_N.txt
  parse                      JSON lines {text, thinking_mode, expected | error}
  logits                     NAME.golden.json beside its model and its .f32 file
OPTIONS
  -m, --model FILE           tokenizer of this file instead of the published one
      --chunk N              logits: also prefill in chunks of N
  -t, --threads N
";

pub(crate) const LOGITS: &str = "\
usage: ds4 logits -m MODEL --ids FILE.json --out FILE.f32 [OPTIONS]

Teacher-forced logits of every position, raw little-endian float32, row after row.
      --ids FILE             a JSON array of token ids
      --out FILE             written under another name and renamed
      --chunk N              most tokens of one forward call (default 512)
      --mode NAME            plain, qat or default
  -t, --threads N
";

pub(crate) const COMPARE: &str = "\
usage: ds4 compare A.json B.json [--tol F]

Compares two --dump-logprobs or two --dump-logits files: first differing token, largest difference of a logit,
KL divergence, top-k overlap. Exit code 0 if no logit differs by more than the tolerance (default 1e-3).
";

pub(crate) const KV: &str = "\
usage: ds4 kv ls DIR [--json]
       ds4 kv show DIR NAME             one object: the beginning of its name is enough
       ds4 kv rm DIR NAME...            those objects, and what is of no use without them
       ds4 kv rm DIR --all
       ds4 kv verify DIR                reads every object and prints what is wrong

Prefixes that a server keeps on disk. Only rm needs the directory for itself.
";

pub(crate) const BENCH: &str = "\
usage: ds4 bench [-m MODEL] (--prompt-file FILE | --chat-prompt-file FILE) [OPTIONS]     (also ds4-bench)

       ds4 bench stages [-m MODEL] [--ctx N] [--rows LIST]     where a step's time goes, stage by stage: after a prompt of N
                                tokens (default 2048) steps of so many sequences (default 1,8,32)

Speed of prefill and decode at growing contexts, as CSV: at each one the text is read up to there, then so many tokens are
generated greedily, then the state is put back. Rows are written as they come, so an interrupted run leaves a whole table.
TEXT
      --prompt-file FILE       the tokens of a text as they are
      --chat-prompt-file FILE  one user turn, answered without reasoning; -sys TEXT is its system prompt
CONTEXTS
      --ctx-start N            first one, default 2048
      --ctx-max N              last one, default 32768; the text must be as long
      --step-incr N            from one to the next, default 2048
      --step-mul F             1..1024: more than 1 multiplies instead
      --ctx-alloc N            tokens the cache has room for, default ctx-max + gen-tokens + 1
RUN
  -n, --gen-tokens N           default 128; 0 measures prefill only. The end of a turn does not end it
      --repeat N               median of N runs, default 1
      --warmup N               runs before the first one, default 1
      --concurrency LIST       decode of so many copies side by side, as in 1,2,4; needs --extended
  -t, --threads N; --quality; --prefill-chunk N; --backend NAME; --cpu; --cuda; --vulkan; --metal; --device N: see --help runtime
OUTPUT
      --csv FILE               instead of standard output
      --extended               more columns: ttft_ms, batch, agg_gen_tps, gen_p50_ms, gen_p99_ms, device_mem_bytes, power_w
      --comments               lines '# key=value' before the header: model, device, flags, and what bounds decoding: the
                               bytes of weights a token reads (token_bytes) and, of the CPU, bytes a second memory gives
                               (read_bandwidth)
      --json FILE              all of that as an object
      --tag TEXT               goes into comments and JSON
      --dump-frontier-logits-dir DIR   the logits at every context, for ds4 compare
See ds4 plot for a picture of the table.
";

pub(crate) const DOCTOR: &str = "\
usage: ds4 doctor

Shows what this machine has to evaluate on, CPU, cards and GPUs with their memory, and which of it a model file runs on unless told
otherwise.
";

pub(crate) const PLOT: &str = "\
usage: ds4 plot FILE.csv [OPTIONS]

Draws a table of ds4 bench: prefill on the left axis, generation on the right, over the context.
  -o, --out FILE.svg           default NAME_ts.svg next to NAME.csv
      --title TEXT
      --width N, --height N    default 960 and 540
      --compare FILE.csv       a second table, dashed
";

pub(crate) const EVAL: &str = "\
usage: ds4 eval [-m MODEL] [OPTIONS]     (also ds4-eval)

Runs cases through the same path as users' requests and grades the answers. On a terminal it has a screen of its own.
CASES
      --cases FILE           JSON lines, plain or gzip, instead of the cases inside; may be repeated
      --suite NAME[,NAME]    only these suites
      --case-sequence LIST   numbers from 1, ranges and ids, in this order: 3,1,5-7,tools-0007
      --questions N          the first N of them
      --list-cases           print them and end
RUN
  -n, --tokens N             most tokens of a reply, default 16000; the context is sized from it and the longest prompt
      --think, --nothink     for cases that leave it open (default --think)
      --temp F               default 0; --seed, --top-p, --min-p, --top-k and penalties: see --help sampling
      --repeat N             every case N times with seeds that follow one another; prints pass@1 and its standard error
      --retry-incomplete     a case whose reasoning never closed gets a second run with twice the tokens
      --concurrency N        cases run side by side, default 1
      --soft-limit-reply-budget N      in the last N tokens </think> is taken once it ranks high (default 1024, at most half
                                       of --tokens)
      --soft-limit-think-close-rank N  that rank, default 3
      --hard-limit-reply-budget N      with N tokens left </think> is forced (default 512, at most a quarter of --tokens)
  -t, --threads N; --quality; --warm-weights; --prefill-chunk N; --no-lock; --backend NAME; --cpu; --cuda; --vulkan; --metal; --device N: see
      --help runtime
OUTPUT
      --plain                lines instead of the screen
      --pause-ms N           rest between two cases on the screen, default 350
      --trace FILE           everything as JSON lines: prompts, replies, grades
      --regrade-trace FILE   grade the replies of a trace again; needs no model
      --json FILE            the report as an object
      --self-test-extractors examine the grader and end
Keys: Up and Down select, Enter runs the selected case next, p pauses, s skips, q stops and reports, Ctrl+C twice ends.
Exit code: 0 all passed, 4 some did not, 1 error, 2 usage, 130 interrupted.
";

pub(crate) const SERVER: &str = "\
usage: ds4 server [-m MODEL] [OPTIONS]     (also ds4-server)

OpenAI and Anthropic APIs over HTTP, until SIGTERM or Ctrl+C: running answers are finished, a second signal ends at once.
MODEL
  -m, --model FILE; --mtp FILE; -c, --ctx N; -t, --threads N; --quality; --warm-weights; --prefill-chunk N; --no-lock;
      --backend NAME; --cpu; --cuda; --vulkan; --metal; --device N: see --help runtime
      --chdir DIR            before anything is opened
  -n, --tokens N             most tokens of an answer when the client says nothing (default 393216; the context ends it)
      --parallel N           sequences side by side (default: what half of the free memory holds, at most 64)
      --max-active-requests N    of them run at once; the others keep what they hold (default: all)
      --max-queue N          requests that may wait, default 256; --queue-timeout-sec N: and for how long, 0 for ever (default)
      --mixed-prefill-quantum N  prompt tokens of a step while others decode, default 512
      --max-batched-tokens N     tokens of a step in all
HTTP
      --host HOST            address or name to listen on, default 127.0.0.1; may be repeated
      --port N               default 8000; 0 takes a free one. It is printed as 'listening on http://HOST:PORT'
      --unix-socket PATH     a socket file for this user
      --api-key KEY          needed by every request; may be repeated. $DS4_API_KEY is one, too
      --api-key-file FILE    KEY or KEY NAME a line; read again on SIGHUP
      --cors, --cors-origin ORIGIN   web pages of every origin, or of these, may read answers
      --allowed-host NAME    names that the Host header may carry, beside addresses and loopback names; used without keys
      --max-body-mb N (64), --max-connections N (512), --io-timeout-sec N (10), --idle-timeout-sec N (75),
      --request-timeout-sec N (0: none), --sse-keepalive-sec N (5, 0: none), --drain-timeout-sec N (30)
STATES BEYOND THEIR SLOT
      --kv-disk-dir DIR      kept on disk, and there after a restart; without it in host memory
      --kv-disk-space-mb N   at most so much, default 4096; a twentieth of the file system stays free
      --kv-ram-mb N          without a directory: at most so much, default a tenth of the free memory
      --kv-cache-min-tokens N (512), --kv-cache-cold-max-tokens N (30000, 0: none),
      --kv-cache-continued-interval-tokens N (10000, 0: none), --kv-cache-boundary-trim-tokens N (32),
      --kv-cache-boundary-align-tokens N (2048, 0: none)   what is saved when: docs/kvstore.md
      --kv-cache-reject-different-quant   never go on from a state of the model in another quantisation
      --kv-disk-write-mbps N (500, 0: no limit); --kv-disk-compress none|lz4; --kv-cache-readonly
ANSWERS
      --served-model-name NAME   may be repeated, the first is canonical; --strict-model refuses all others
      --think, --think-max, --nothink   when the request does not say
      --thinking-sampling client|fixed; --think-budget-tokens N; --completions-mode raw|chat
      --reasoning-history official|sticky; --response-store N (256); --tool-memory-max-ids N (100000)
      --disable-exact-dsml-tool-replay; --cache-share
OBSERVATION
      --no-webui             no chat page at /
      --no-metrics; --metrics-prefix ds4|vllm; --slots; --slots-debug (with texts)
      --log-level error|warn|info|debug; --log-format text|json; --log-file FILE; --no-color
      --trace FILE           everything about every request, texts included; --trace-redact; --trace-json
";

pub(crate) const CHECK_DEVICE: &str = "\
usage: ds4 check device [OPTIONS]

Runs synthetic models on a backend and on the CPU side by side and compares every output of every stage; then whole models on
the backend alone: logits, bits that must be equal, states that go from device to device. Prints a table and a last line
'N passed, N failed'.
      --backend NAME         cuda, vulkan, metal (--device N is its number), or the default cpu: the least vector instructions of
                             this machine against its best
      --quick                one small model and few steps
      --part NAME            all (default), stages or models
  -t, --threads N            of the CPU under test
Exit code: 0 if everything holds, 1 if not.
";

pub(crate) const CHECK_EVAL: &str = "\
usage: ds4 check eval [-m MODEL] [OPTIONS]

Runs the suites inside the program on the model, greedily, and measures it: one table with a bar for each claim.
      --suite NAME[,NAME]    only these: chat, thinking, arithmetic, order, tools, tool-result, json, retrieval-1k,
                             retrieval-4k, retrieval-16k; selection (retrieval with random rows instead of the indexer's),
                             draft (guesses of the draft block), perplexity (held-out dialogues), speed
      --mtp FILE             the model's draft block, for draft
      --against FILE         perplexity also as a ratio to this model's
      --max-ratio F          the bar of that ratio; without it the ratio is only shown
      --dialogues N          perplexity of the first N dialogues only
  -n, --tokens N             most tokens of a reply, default 1024
      --concurrency N        cases run side by side, default 8
  -t, --threads N; --quality; --backend NAME; --cpu; --cuda; --vulkan; --metal; --device N: see --help runtime
Exit code: 0 if every bar holds, 4 if one does not, 1 error, 2 usage, 130 interrupted.
";
