//! What `ds4 bench` writes: rows of CSV, comments before them, an object for programs.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// The columns that every reader knows, and those behind them.
const COLUMNS: &str = "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes";
const EXTENDED: &str = "ttft_ms,batch,agg_gen_tps,gen_p50_ms,gen_p99_ms,device_mem_bytes,power_w";

/// One frontier with one number of copies.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) ctx: u32,
    pub(super) prefill_tokens: u32,
    pub(super) prefill: Duration,
    /// All prefill up to here: what a user would have waited for the first token.
    pub(super) first: Duration,
    pub(super) gen_tokens: u32,
    /// Of the median run.
    pub(super) steps: Vec<Duration>,
    pub(super) copies: u32,
    pub(super) state_bytes: u64,
    pub(super) device_bytes: u64,
    /// Power that a card takes; the CPU tells nobody.
    pub(super) watts: Option<f64>,
}

impl Row {
    fn prefill_tps(&self) -> f64 {
        rate(self.prefill_tokens, self.prefill)
    }

    /// Of one sequence.
    fn gen_tps(&self) -> f64 {
        rate(self.gen_tokens, self.steps.iter().sum())
    }

    fn all_tps(&self) -> f64 {
        self.gen_tps() * f64::from(self.copies)
    }

    /// A step's time that this share of the steps does not exceed (nearest rank).
    fn step_ms(&self, share: f64) -> f64 {
        let mut steps = self.steps.clone();
        steps.sort();
        let rank = (share * steps.len() as f64).ceil() as usize;
        steps.get(rank.saturating_sub(1)).map_or(0.0, |step| ms(*step))
    }

    fn csv(&self, extended: bool) -> String {
        let mut line = format!(
            "{},{},{:.2},{},{:.2},{}",
            self.ctx,
            self.prefill_tokens,
            self.prefill_tps(),
            self.gen_tokens,
            self.gen_tps(),
            self.state_bytes
        );
        if extended {
            let watts = self.watts.map_or_else(String::new, |watts| format!("{watts:.2}"));
            let _ = write!(
                line,
                ",{:.2},{},{:.2},{:.3},{:.3},{},{}",
                ms(self.first),
                self.copies,
                self.all_tps(),
                self.step_ms(0.5),
                self.step_ms(0.99),
                self.device_bytes,
                watts
            );
        }
        line
    }

    fn json(&self) -> Value {
        json!({
            "ctx_tokens": self.ctx,
            "prefill_tokens": self.prefill_tokens,
            "prefill_tps": self.prefill_tps(),
            "gen_tokens": self.gen_tokens,
            "gen_tps": self.gen_tps(),
            "kvcache_bytes": self.state_bytes,
            "ttft_ms": ms(self.first),
            "batch": self.copies,
            "agg_gen_tps": self.all_tps(),
            "gen_p50_ms": self.step_ms(0.5),
            "gen_p99_ms": self.step_ms(0.99),
            "device_mem_bytes": self.device_bytes,
            "power_w": self.watts,
        })
    }
}

/// What the rows are about, as `key=value`.
pub(super) type Facts = Vec<(&'static str, Value)>;

/// A table under way; every line is flushed, so that what an interrupted run leaves is whole.
pub(super) struct Table<'a> {
    out: &'a mut dyn Write,
    extended: bool,
    pub(super) rows: Vec<Row>,
}

impl<'a> Table<'a> {
    pub(super) fn begin(out: &'a mut dyn Write, extended: bool, comments: Option<&Facts>) -> anyhow::Result<Self> {
        let mut table = Self { out, extended, rows: Vec::new() };
        for (key, value) in comments.into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.line(&format!("# {key}={}", text.replace(['\n', '\r'], " ")))?;
        }
        table.line(&if extended { format!("{COLUMNS},{EXTENDED}") } else { COLUMNS.to_owned() })?;
        Ok(table)
    }

    pub(super) fn row(&mut self, row: Row) -> anyhow::Result<()> {
        self.line(&row.csv(self.extended))?;
        self.rows.push(row);
        Ok(())
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{line}")
            .and_then(|()| self.out.flush())
            .map_err(|e| anyhow::anyhow!("cannot write CSV: {}", crate::failure::reason(&e)))
    }

    /// Facts and rows as one object.
    pub(super) fn json(&self, facts: &Facts) -> Value {
        let mut object: serde_json::Map<String, Value> =
            facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        object.insert("rows".to_owned(), self.rows.iter().map(Row::json).collect());
        Value::Object(object)
    }
}

/// Today, as in 2026-11-23.
pub(super) fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The civil date so many days after 1970-01-01.
fn date(days: u64) -> String {
    // Eras of 400 years that begin in March, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

fn rate(tokens: u32, time: Duration) -> f64 {
    if tokens == 0 { 0.0 } else { f64::from(tokens) / time.as_secs_f64().max(1e-9) }
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            ctx: 4096,
            prefill_tokens: 2048,
            prefill: Duration::from_millis(500),
            first: Duration::from_millis(900),
            gen_tokens: 4,
            steps: [10, 40, 20, 30].map(Duration::from_millis).to_vec(),
            copies: 2,
            state_bytes: 123,
            device_bytes: 456,
            watts: None,
        }
    }

    #[test]
    fn rows_have_the_columns_of_the_header() {
        let mut text = Vec::new();
        let facts = vec![("tag", json!("a\nb")), ("threads", json!(2))];
        let mut table = Table::begin(&mut text, true, Some(&facts)).expect("a header");
        table.row(row()).expect("a row");
        let text = String::from_utf8(text).expect("UTF-8");
        let expected = "# tag=a b\n# threads=2\nctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes,\
            ttft_ms,batch,agg_gen_tps,gen_p50_ms,gen_p99_ms,device_mem_bytes,power_w\n\
            4096,2048,4096.00,4,40.00,123,900.00,2,80.00,20.000,40.000,456,\n";
        assert_eq!(text, expected);
        assert_eq!(row().csv(false), "4096,2048,4096.00,4,40.00,123");
        let powered = Row { watts: Some(312.5), ..row() };
        assert!(powered.csv(true).ends_with(",456,312.50"));
        assert_eq!((&powered.json()["power_w"], &row().json()["power_w"]), (&json!(312.5), &Value::Null));
        let none = Row { gen_tokens: 0, steps: Vec::new(), ..row() };
        assert_eq!(none.csv(false), "4096,2048,4096.00,0,0.00,123");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!([0, 59, 11_016, 20_780].map(date), ["1970-01-01", "1970-03-01", "2000-02-29", "2026-11-23"]);
    }
}
