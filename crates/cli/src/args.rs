//! One command line, read left to right: names, values and their checks. Owns the wording of usage errors; knows no flag.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use crate::failure::{usage, usage_hint};

/// A command line under way.
pub(crate) struct Args {
    parser: Parser,
    hint: &'static str,
}

/// The next thing on it.
pub(crate) enum Item {
    /// An option as it was spelt, dashes included, without its value.
    Flag(String),
    /// Anything else.
    Free(OsString),
}

impl Args {
    /// `hint` names the help page that lists the options.
    pub(crate) fn new(args: impl IntoIterator<Item = OsString>, hint: &'static str) -> Self {
        Self { parser: Parser::from_args(args), hint }
    }

    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Item>> {
        let item = match self.parser.next() {
            Ok(None) => return Ok(None),
            Ok(Some(Arg::Long(name))) => Item::Flag(format!("--{name}")),
            // `-sys` is the one long name with a single dash: to the parser it is `-s` with a value.
            Ok(Some(Arg::Short('s'))) => return self.system_flag().map(Some),
            Ok(Some(Arg::Short(name))) => Item::Flag(format!("-{name}")),
            Ok(Some(Arg::Value(value))) => Item::Free(value),
            Err(lexopt::Error::UnexpectedValue { option, value }) => {
                return Err(usage(format!("{option} takes no value: {}", value.to_string_lossy())));
            }
            Err(error) => return Err(usage(error.to_string())),
        };
        Ok(Some(item))
    }

    fn system_flag(&mut self) -> anyhow::Result<Item> {
        match self.parser.optional_value() {
            Some(rest) if rest == "ys" => Ok(Item::Flag("-sys".to_owned())),
            Some(rest) => Err(self.unknown(&format!("-s{}", rest.to_string_lossy()))),
            None => Err(self.unknown("-s")),
        }
    }

    /// The error for an option that does not exist.
    pub(crate) fn unknown(&self, flag: &str) -> anyhow::Error {
        usage_hint(format!("unknown option: {flag}"), self.hint)
    }

    /// The error for a word where none belongs.
    pub(crate) fn unexpected(&self, word: &OsString) -> anyhow::Error {
        usage_hint(format!("unexpected argument: {}", word.to_string_lossy()), self.hint)
    }

    /// The value of the flag just read, whatever it looks like.
    pub(crate) fn value(&mut self, flag: &str) -> anyhow::Result<OsString> {
        self.parser.value().map_err(|_| usage(format!("missing value for {flag}")))
    }

    /// A value attached with `=`, or the next word if it is not an option: for flags whose value may be left out.
    pub(crate) fn optional(&mut self) -> Option<String> {
        if let Some(value) = self.parser.optional_value() {
            return Some(value.to_string_lossy().into_owned());
        }
        let mut rest = self.parser.try_raw_args()?;
        let next = rest.peek()?.to_string_lossy().into_owned();
        if next.starts_with('-') {
            return None;
        }
        rest.next();
        Some(next)
    }

    pub(crate) fn path(&mut self, flag: &str) -> anyhow::Result<PathBuf> {
        let value = self.value(flag)?;
        if value.is_empty() {
            return Err(usage(format!("invalid value for {flag}: expected a file name")));
        }
        Ok(value.into())
    }

    pub(crate) fn text(&mut self, flag: &str) -> anyhow::Result<String> {
        let value = self.value(flag)?;
        value
            .into_string()
            .map_err(|raw| usage(format!("invalid value for {flag}: {}: not valid UTF-8", raw.to_string_lossy())))
    }

    /// A decimal number: digits only, the whole string, within `range`.
    pub(crate) fn int(&mut self, flag: &str, range: RangeInclusive<u64>) -> anyhow::Result<u64> {
        let text = self.text(flag)?;
        parse_int(&text, range).map_err(|why| usage(format!("invalid value for {flag}: {text}{why}")))
    }

    /// A finite number within `range`.
    pub(crate) fn float(&mut self, flag: &str, range: RangeInclusive<f32>) -> anyhow::Result<f32> {
        let text = self.text(flag)?;
        parse_float(&text, range).map_err(|why| usage(format!("invalid value for {flag}: {text}{why}")))
    }
}

/// The number, or why not: nothing more to say when the text is not a number, else `: expected A..B`.
pub(crate) fn parse_int(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(String::new());
    }
    let value = text.parse::<u64>().ok().filter(|v| range.contains(v));
    value.ok_or_else(|| match *range.end() {
        u64::MAX => format!(": expected at least {}", range.start()),
        end => format!(": expected {}..{end}", range.start()),
    })
}

/// As `parse_int`, for finite decimals.
pub(crate) fn parse_float(text: &str, range: RangeInclusive<f32>) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(String::new)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(match *range.end() {
        f32::MAX => format!(": expected at least {}", range.start()),
        end => format!(": expected {}..{end}", range.start()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_strings_of_digits_within_their_range() {
        assert_eq!(parse_int("12", 1..=20), Ok(12));
        for bad in ["", "+1", "-1", "1 ", " 1", "0x10", "1e3", "1.0", "abc"] {
            assert_eq!(parse_int(bad, 0..=20), Err(String::new()), "{bad}");
        }
        assert_eq!(parse_int("21", 1..=20), Err(": expected 1..20".to_owned()));
        assert_eq!(parse_int("99999999999999999999", 1..=20), Err(": expected 1..20".to_owned()));
        assert_eq!(parse_int("0", 1..=u64::MAX), Err(": expected at least 1".to_owned()));
    }

    #[test]
    fn floats_are_finite_and_within_their_range() {
        assert_eq!(parse_float("0.5", 0.0..=1.0), Ok(0.5));
        for bad in ["nan", "inf", "-inf", "", "x", "1e99"] {
            assert_eq!(parse_float(bad, 0.0..=1.0), Err(String::new()), "{bad}");
        }
        assert_eq!(parse_float("2", 0.0..=1.0), Err(": expected 0..1".to_owned()));
        assert_eq!(parse_float("-1", 0.0..=f32::MAX), Err(": expected at least 0".to_owned()));
    }
}
