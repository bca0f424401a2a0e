//! The control strings of the prompt protocol and their ids in one vocabulary (`spec/prompt.md` 1). Owns the spellings; where
//! they go is `render`'s business. The bars are U+FF5C, the low blocks U+2581.

pub(crate) const BOS: &str = "<｜begin▁of▁sentence｜>";
pub(crate) const EOS: &str = "<｜end▁of▁sentence｜>";
pub(crate) const USER: &str = "<｜User｜>";
pub(crate) const ASSISTANT: &str = "<｜Assistant｜>";
pub(crate) const THINK: &str = "<think>";
pub(crate) const THINK_END: &str = "</think>";
pub(crate) const DSML: &str = "｜DSML｜";
pub(crate) const LATEST_REMINDER: &str = "<｜latest_reminder｜>";

/// Without these no prompt can be written and no turn be read.
pub(crate) const REQUIRED: [&str; 7] = [BOS, EOS, USER, ASSISTANT, THINK, THINK_END, DSML];

/// Task names and the control strings that ask for them (`spec/prompt.md` 12).
pub(crate) const TASKS: [(&str, &str); 6] = [
    ("action", "<｜action｜>"),
    ("query", "<｜query｜>"),
    ("authority", "<｜authority｜>"),
    ("domain", "<｜domain｜>"),
    ("title", "<｜title｜>"),
    ("read_url", "<｜read_url｜>"),
];

/// Ids of the control strings. The last seven are absent from pruned vocabularies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    pub bos: u32,
    /// The only stop id.
    pub eos: u32,
    pub user: u32,
    pub assistant: u32,
    pub think: u32,
    pub think_end: u32,
    pub dsml: u32,
    pub latest_reminder: Option<u32>,
    pub action: Option<u32>,
    pub query: Option<u32>,
    pub authority: Option<u32>,
    pub domain: Option<u32>,
    pub title: Option<u32>,
    pub read_url: Option<u32>,
}

impl Special {
    /// `id_of` must know all of [`REQUIRED`]; the caller has checked that.
    pub(crate) fn find(id_of: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let [action, query, authority, domain, title, read_url] = TASKS.map(|(_, text)| id_of(text));
        Some(Self {
            bos: id_of(BOS)?,
            eos: id_of(EOS)?,
            user: id_of(USER)?,
            assistant: id_of(ASSISTANT)?,
            think: id_of(THINK)?,
            think_end: id_of(THINK_END)?,
            dsml: id_of(DSML)?,
            latest_reminder: id_of(LATEST_REMINDER),
            action,
            query,
            authority,
            domain,
            title,
            read_url,
        })
    }
}
