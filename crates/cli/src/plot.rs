//! `ds4 plot`: the rows of `ds4 bench` as a picture: prefill on the left axis, generation on the right, over the context.

mod svg;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};

use crate::args::{Args, Item};
use crate::failure::usage;
use crate::file::{read_text, write_whole};
use crate::{help, terminal};

struct Options {
    csv: PathBuf,
    out: Option<PathBuf>,
    title: Option<String>,
    width: u32,
    height: u32,
    compare: Option<PathBuf>,
}

/// One file's rows.
#[derive(Debug, PartialEq)]
pub(crate) struct Series {
    /// Name of the file without its ending.
    name: String,
    /// Context, prefill, generation.
    points: Vec<[f64; 3]>,
}

/// Columns that a picture needs.
const NEEDED: [&str; 3] = ["ctx_tokens", "prefill_tps", "gen_tps"];

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(options) = parse(words)? else { return terminal::show(out, help::PLOT) };
    let mut series = vec![read(&options.csv)?];
    if let Some(path) = &options.compare {
        series.push(read(path)?);
    }
    let title = options
        .title
        .clone()
        .unwrap_or_else(|| series.iter().map(|series| series.name.as_str()).collect::<Vec<_>>().join(" and "));
    let picture = svg::draw(&series, &title, (options.width, options.height));
    let path = options.out.unwrap_or_else(|| beside(&options.csv));
    write_whole(&path, |file| Ok(file.write_all(picture.as_bytes())?))?;
    terminal::show(out, &format!("{}\n", path.display()))
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 plot --help'");
    let (mut csv, mut out, mut title, mut compare) = (None, None, None, None);
    let (mut width, mut height) = (960, 540);
    while let Some(item) = args.next()? {
        match item {
            Item::Free(word) if csv.is_none() => csv = Some(PathBuf::from(word)),
            Item::Free(word) => return Err(args.unexpected(&word)),
            Item::Flag(flag) => match flag.as_str() {
                "-h" | "--help" => return Ok(None),
                "-o" | "--out" => out = Some(args.path(&flag)?),
                "--title" => title = Some(args.text(&flag)?),
                "--width" => width = args.int(&flag, 320..=8192)? as u32,
                "--height" => height = args.int(&flag, 200..=8192)? as u32,
                "--compare" => compare = Some(args.path(&flag)?),
                _ => return Err(args.unknown(&flag)),
            },
        }
    }
    let csv = csv.ok_or_else(|| usage("plot needs a file: ds4 plot FILE.csv"))?;
    Ok(Some(Options { csv, out, title, width, height, compare }))
}

/// `NAME_ts.svg` next to `NAME.csv`.
fn beside(csv: &Path) -> PathBuf {
    let mut name = csv.file_stem().unwrap_or_default().to_owned();
    name.push("_ts.svg");
    csv.with_file_name(name)
}

fn read(path: &Path) -> anyhow::Result<Series> {
    let text = read_text(path, "CSV")?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let points = points(&text).map_err(|why| anyhow!("cannot plot {}: {why}", path.display()))?;
    Ok(Series { name, points })
}

/// Rows by the names of their columns. Of a table with several batches only the first row's batch.
fn points(text: &str) -> anyhow::Result<Vec<[f64; 3]>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| column(name).is_none()).collect();
    if !missing.is_empty() {
        bail!("no column {}", missing.join(", "));
    }
    let (places, batch) = (NEEDED.map(column), column("batch"));
    let (mut rows, mut only) = (Vec::new(), None);
    for line in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |place: Option<usize>| place.and_then(|at| cells.get(at)).copied().unwrap_or_default();
        if batch.is_some() && *only.get_or_insert_with(|| cell(batch).to_owned()) != cell(batch) {
            continue;
        }
        let number = |place: Option<usize>| {
            let text = cell(place);
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            value.ok_or_else(|| anyhow!("found {text:?} in a row, expected a number"))
        };
        rows.push([number(places[0])?, number(places[1])?, number(places[2])?]);
    }
    if rows.len() < 2 {
        bail!("{} rows, expected at least 2", rows.len());
    }
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_behind_a_mark_and_comments() {
        let text = "\u{feff}# model=x\ngen_tps,ctx_tokens,prefill_tps,batch\n5,200,7.5,1\n9,200,7.5,4\n6,100,8,1\n";
        assert_eq!(points(text).expect("rows"), [[100.0, 8.0, 6.0], [200.0, 7.5, 5.0]]);
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let error = |text: &str| points(text).expect_err("no picture").to_string();
        assert_eq!(error("ctx_tokens,speed\n"), "no column prefill_tps, gen_tps");
        assert_eq!(error("ctx_tokens,prefill_tps,gen_tps\n1,2,3\n"), "1 rows, expected at least 2");
        assert_eq!(error("ctx_tokens,prefill_tps,gen_tps\n1,2,x\n"), "found \"x\" in a row, expected a number");
        assert_eq!(error(""), "no column ctx_tokens, prefill_tps, gen_tps");
    }

    #[test]
    fn a_picture_lies_beside_its_table() {
        assert_eq!(beside(Path::new("a/speed.csv")), Path::new("a/speed_ts.svg"));
    }
}
