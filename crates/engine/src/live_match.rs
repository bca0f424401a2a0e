//! Why a prompt could not be gone on with from further: the sequence in a slot that shares most with it, and where they part.
//! Only looked for when a request asks.

use crate::session::common_prefix;

/// The live sequence of the same tenant that shares most with a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveMatch {
    /// Its tokens; 0 if no slot holds anything.
    pub held: u32,
    /// Tokens that it has in common with the prompt.
    pub common: u32,
    /// Position of the first token of both windows.
    pub start: u32,
    /// What it has around the place where they part.
    pub live: Vec<u32>,
    /// What the prompt has there.
    pub prompt: Vec<u32>,
}

impl LiveMatch {
    pub(crate) fn of<'a>(sequences: impl Iterator<Item = &'a [u32]>, prompt: &[u32]) -> Self {
        let common = |tokens: &[u32]| common_prefix(tokens, prompt) as usize;
        let best =
            sequences.map(|tokens| (common(tokens), tokens)).max_by_key(|&(common, tokens)| (common, tokens.len()));
        let (common, tokens) = best.unwrap_or_default();
        let start = common.saturating_sub(WINDOW);
        let window = |tokens: &[u32]| tokens[start..tokens.len().min(common + WINDOW)].to_vec();
        LiveMatch {
            held: tokens.len() as u32,
            common: common as u32,
            start: start as u32,
            live: window(tokens),
            prompt: window(prompt),
        }
    }
}

/// Tokens shown on either side.
const WINDOW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_that_shares_most_is_shown_around_where_it_parts() {
        let prompt: Vec<u32> = (0..100).collect();
        let other: Vec<u32> = (0..50).chain(900..905).collect();
        let found = LiveMatch::of([&prompt[..10], &other, &[7, 8]].into_iter(), &prompt);
        let live = (42..50).chain(900..905).collect();
        assert_eq!(found, LiveMatch { held: 55, common: 50, start: 42, live, prompt: (42..58).collect() });
        let beginning = LiveMatch::of([&prompt[..10]].into_iter(), &prompt);
        assert_eq!((beginning.common, beginning.live), (10, (2..10).collect()), "it goes no further");
        let none = LiveMatch::of(std::iter::empty(), &[1, 2]);
        assert_eq!(none, LiveMatch { prompt: vec![1, 2], ..LiveMatch::default() });
    }
}
