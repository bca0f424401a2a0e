//! The tags of a call block in their three spellings. Owns the strings that the readers, the stream and the tracker look for.

use crate::control::DSML;

/// Ends a parameter in the official spelling.
pub(crate) const PARAMETER_END: &str = "</｜DSML｜parameter>";
/// How a value spells [`PARAMETER_END`].
pub(crate) const ESCAPED_PARAMETER_END: &str = "&lt;/｜DSML｜parameter>";

/// One spelling: with both bars, with the first bar missing, plain.
#[derive(Debug)]
pub(crate) struct Tags {
    pub(crate) block: &'static str,
    pub(crate) block_end: &'static str,
    /// Without what follows the tag's name, as the other openers.
    pub(crate) invoke: &'static str,
    pub(crate) invoke_end: &'static str,
    pub(crate) parameter: &'static str,
    pub(crate) parameter_end: &'static str,
    pub(crate) escaped_parameter_end: &'static str,
}

impl Tags {
    /// The official spelling.
    pub(crate) const FULL: Self = Self {
        block: "<｜DSML｜tool_calls>",
        block_end: "</｜DSML｜tool_calls>",
        invoke: "<｜DSML｜invoke",
        invoke_end: "</｜DSML｜invoke>",
        parameter: "<｜DSML｜parameter",
        parameter_end: PARAMETER_END,
        escaped_parameter_end: ESCAPED_PARAMETER_END,
    };
    const SHORT: Self = Self {
        block: "<DSML｜tool_calls>",
        block_end: "</DSML｜tool_calls>",
        invoke: "<DSML｜invoke",
        invoke_end: "</DSML｜invoke>",
        parameter: "<DSML｜parameter",
        parameter_end: "</DSML｜parameter>",
        escaped_parameter_end: "&lt;/DSML｜parameter>",
    };
    const PLAIN: Self = Self {
        block: "<tool_calls>",
        block_end: "</tool_calls>",
        invoke: "<invoke",
        invoke_end: "</invoke>",
        parameter: "<parameter",
        parameter_end: "</parameter>",
        escaped_parameter_end: "&lt;/parameter>",
    };

    /// In the order in which the lenient reading looks for them.
    pub(crate) const ALL: [&'static Self; 3] = [&Self::FULL, &Self::SHORT, &Self::PLAIN];
}

/// Bytes at the end of `text` that may be the start of one of `patterns`; less than a whole one.
pub(crate) fn partial_end(text: &str, patterns: &[&str]) -> usize {
    let longest = patterns.iter().map(|p| p.len()).max().unwrap_or(0);
    let starts = text.char_indices().rev().map(|(i, _)| i).take_while(|i| text.len() - i < longest);
    let held = starts.filter(|&i| patterns.iter().any(|p| p.len() > text.len() - i && p.starts_with(&text[i..])));
    held.last().map_or(0, |i| text.len() - i)
}

/// The value of an attribute, found by name anywhere in the tag.
pub(crate) fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let mut at = 0;
    while let Some(found) = tag[at..].find(name) {
        at += found + name.len();
        if let Some(value) = tag[at..].strip_prefix("=\"") {
            return value.find('"').map(|end| &value[..end]);
        }
    }
    None
}

/// Index of the `>` that ends the tag at the start of `text`, outside quotes.
pub(crate) fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    text.iter().position(|&b| {
        quoted ^= b == b'"';
        b == b'>' && !quoted
    })
}

/// What must not stand in the content or reasoning of a well-formed turn.
pub(crate) const FORBIDDEN: [&str; 5] =
    [crate::control::BOS, crate::control::EOS, crate::control::THINK, crate::control::THINK_END, DSML];
