//! `ds4 bench` and `ds4 plot`: tables of the miniature, what is refused, and what an interrupted run leaves.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;

use crate::program::{Program, Ran, fixture};

const HEADER: &str = "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes";

/// A folder with `text.txt`: the beginning of the benchmark text.
fn with_text(bytes: u64) -> Program {
    let program = Program::new();
    let zipped = std::fs::File::open(fixture("bench/promessi_sposi.txt.gz")).expect("the text");
    let mut text = Vec::new();
    GzDecoder::new(zipped).take(bytes).read_to_end(&mut text).expect("gzip");
    program.write("text.txt", String::from_utf8_lossy(&text).as_bytes());
    program
}

const SHORT: [&str; 12] = [
    "bench",
    "--prompt-file",
    "text.txt",
    "--ctx-start",
    "64",
    "--ctx-max",
    "150",
    "--step-incr",
    "50",
    "--warmup",
    "0",
    "--gen-tokens",
];

fn bench(program: &Program, tokens: &str, more: &[&str]) -> Ran {
    program.works(&[&SHORT[..], &[tokens], more].concat())
}

fn cells(line: &str) -> Vec<&str> {
    line.split(',').collect()
}

#[test]
fn a_table_has_a_row_for_every_context() {
    let program = with_text(3000);
    let ran = bench(&program, "3", &["--repeat", "2", "--dump-frontier-logits-dir", "logits"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], HEADER);
    let rows: Vec<Vec<&str>> = lines[1..].iter().map(|line| cells(line)).collect();
    let counts: Vec<[&str; 3]> = rows.iter().map(|row| [row[0], row[1], row[3]]).collect();
    assert_eq!(counts, [["64", "64", "3"], ["114", "50", "3"], ["150", "36", "3"]]);
    for row in &rows {
        assert_eq!(row.len(), 6);
        for speed in [row[2], row[4]] {
            assert!(
                speed.parse::<f64>().expect("a number") > 0.0 && speed.split('.').nth(1).expect("digits").len() == 2
            );
        }
    }
    let bytes: Vec<u64> = rows.iter().map(|row| row[5].parse().expect("bytes")).collect();
    // Open windows of the compressors are part of a state: a longer one may be smaller.
    assert!(bytes.iter().all(|bytes| *bytes > 100_000), "{bytes:?}");

    // Contexts that were reached in steps, with generated tokens in between, are those of one prompt.
    let whole = with_text(3000);
    whole.works(&[
        "bench",
        "--prompt-file",
        "text.txt",
        "--ctx-start",
        "150",
        "--ctx-max",
        "150",
        "-n",
        "0",
        "--warmup",
        "0",
        "--dump-frontier-logits-dir",
        "once",
        "--csv",
        "once.csv",
    ]);
    let once = whole.path("once/frontier_150.json").display().to_string();
    program.works(&["compare", "logits/frontier_150.json", &once, "--tol", "0"]);
    let csv = String::from_utf8(whole.read("once.csv")).expect("UTF-8");
    assert!(
        csv.starts_with(HEADER) && csv.lines().nth(1).is_some_and(|row| cells(row)[3..5] == ["0", "0.00"]),
        "{csv}"
    );
}

#[test]
fn copies_are_decoded_side_by_side_and_everything_is_written_down() {
    let program = with_text(3000);
    let more =
        ["--extended", "--comments", "--concurrency", "1,3", "--json", "t.json", "--tag", "first", "--csv", "t.csv"];
    assert_eq!(bench(&program, "2", &more).out, "");
    let csv = String::from_utf8(program.read("t.csv")).expect("UTF-8");
    let (comments, table): (Vec<&str>, Vec<&str>) = csv.lines().partition(|line| line.starts_with("# "));
    for key in
        ["model", "quant", "backend", "device", "commit", "date", "flags", "tag", "token_bytes", "read_bandwidth"]
    {
        assert!(comments.iter().any(|line| line.starts_with(&format!("# {key}="))), "{key}: {csv}");
    }
    let columns = cells(table[0]);
    assert_eq!(table[0], format!("{HEADER},ttft_ms,batch,agg_gen_tps,gen_p50_ms,gen_p99_ms,device_mem_bytes,power_w"));
    let column = |row: &str, name: &str| {
        let at = columns.iter().position(|column| *column == name).expect("a column");
        cells(row)[at].to_owned()
    };
    let batches: Vec<String> = table[1..].iter().map(|row| column(row, "batch")).collect();
    assert_eq!(batches, ["1", "3", "1", "3", "1", "3"]);
    for row in &table[1..] {
        assert_eq!(cells(row).len(), columns.len());
        let number = |name: &str| column(row, name).parse::<f64>().expect("a number");
        assert!((number("agg_gen_tps") - number("batch") * number("gen_tps")).abs() < 0.05, "{row}");
        assert!(number("gen_p50_ms") <= number("gen_p99_ms") && number("ttft_ms") > 0.0, "{row}");
    }
    let json = program.json("t.json");
    assert_eq!((&json["tag"], json["rows"].as_array().expect("rows").len()), (&"first".into(), 6));

    let ran = program.works(&["plot", "t.csv", "--compare", "t.csv", "--title", "<both>"]);
    assert_eq!(ran.out, "t_ts.svg\n");
    let picture = String::from_utf8(program.read("t_ts.svg")).expect("UTF-8");
    assert!(picture.starts_with("<svg ") && picture.contains("&lt;both&gt;"));
    assert_eq!(picture.matches("<polyline").count(), 4);
}

#[test]
fn a_chat_prompt_is_one_turn() {
    let program = with_text(3000);
    let chat = ["bench", "--chat-prompt-file", "text.txt", "-sys", "Be brief.", "--ctx-start", "90", "--ctx-max", "90"];
    let ran = program.works(&[&chat[..], &["-n", "1", "--warmup", "0"]].concat());
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let program = with_text(300);
    let text = ["bench", "--prompt-file", "text.txt"];
    let cases: &[(&[&str], &str)] = &[
        (
            &["bench"],
            "ds4-bench: bench needs a text that is long enough: --prompt-file FILE (its tokens as they are) or \
             --chat-prompt-file FILE (one user turn)\n",
        ),
        (
            &["bench", "--prompt-file", "a", "--chat-prompt-file", "b"],
            "ds4-bench: --prompt-file and --chat-prompt-file cannot be combined\n",
        ),
        (&["bench", "serve"], "ds4-bench: bench serve is not supported by this build\n"),
        (
            &["bench", "--prompt-file", "a", "--ctx-start", "9", "--ctx-max", "8"],
            "ds4-bench: --ctx-start 9 is more than --ctx-max 8\n",
        ),
        (
            &["bench", "--prompt-file", "a", "--concurrency", "1,2"],
            "ds4-bench: --concurrency needs --extended: without it rows of one context cannot be told apart\n",
        ),
        (
            &["bench", "--prompt-file", "a", "--concurrency", "1,,2"],
            "ds4-bench: invalid value for --concurrency: 1,,2\n",
        ),
        (
            &["bench", "--prompt-file", "a", "-sys", "b"],
            "ds4-bench: -sys needs --chat-prompt-file: a raw text has no template\n",
        ),
        (&["plot"], "ds4: plot needs a file: ds4 plot FILE.csv\n"),
    ];
    for (args, message) in cases {
        let ran = program.run(args);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (2, "", *message), "{args:?}");
    }
    let short = program.run(&[&text[..], &["--ctx-max", "4000"]].concat());
    assert_eq!((short.code, short.out.as_str()), (1, ""));
    assert!(
        short.err.contains("text.txt: ") && short.err.ends_with(" tokens, expected at least --ctx-max=4000\n"),
        "{}",
        short.err
    );
    program.write("bad.csv", "ctx_tokens,x\n1,2\n");
    let plot = program.run(&["plot", "bad.csv"]);
    assert_eq!((plot.code, plot.err.as_str()), (1, "ds4: cannot plot bad.csv: no column prefill_tps, gen_tps\n"));
}

#[test]
fn an_interrupted_run_leaves_whole_rows() {
    let program = with_text(40_000);
    let contexts =
        ["bench", "--prompt-file", "text.txt", "--ctx-start", "32", "--ctx-max", "8000", "--step-incr", "32"];
    let args = [&contexts[..], &["-n", "4", "--warmup", "0"]].concat();
    let mut command = program.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first: Vec<String> = lines.by_ref().take(2).map(|line| line.expect("UTF-8")).collect();
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().expect("kill").success());
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert_eq!(first[0], HEADER);
    assert!(rest.len() < 100, "{} rows before it stopped", rest.len());
    assert!(first.iter().chain(&rest).all(|line| cells(line).len() == 6));
}

#[test]
fn the_benchmark_has_a_name_of_its_own() {
    let help = Command::new(env!("CARGO_BIN_EXE_ds4-bench")).arg("--help").output().expect("ran");
    assert!(help.status.success() && help.stdout.starts_with(b"usage: ds4 bench"));
}

#[test]
fn stages_have_a_row_each_for_a_prompt_and_for_every_number_of_rows() {
    let ran = Program::new().works(&["bench", "stages", "--cpu", "--ctx", "80", "--rows", "1,3"]);
    let tables: Vec<&str> = ran.out.split("\n\n").collect();
    assert_eq!(tables.len(), 4, "{}", ran.out);
    assert!(tables[0].starts_with("memory: "));
    for (table, name) in tables[1..].iter().zip(["prefill of 80 rows up to 80", "decode of 1 rows", "decode of 3 rows"])
    {
        assert!(table.starts_with(name), "{table}");
        let stages: Vec<&str> = table.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
        for stage in ["Embed", "HcPre", "Project", "Query", "Attend", "AttnOutput", "Route", "Experts", "Head"] {
            assert!(stages.contains(&stage), "{stage} in {table}");
        }
        let head: Vec<&str> = table.lines().last().expect("rows").split_whitespace().collect();
        assert_eq!(head[..2], ["Head", "1"], "{table}");
        assert!(head[5].parse::<f64>().is_ok_and(|megabytes| megabytes > 1.0), "{table}");
    }
}
