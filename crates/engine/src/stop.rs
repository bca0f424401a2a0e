//! Stop strings in a stream of text. Owns the text that may turn out to be the start of one; shows everything else at
//! once.

/// Finds the first stop string, however the text is cut into pieces.
#[derive(Clone, Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    /// The longest end of the text so far that some stop string starts with.
    held: String,
    /// Show the stop string too.
    include: bool,
}

impl StopFilter {
    /// Empty strings are ignored.
    pub(crate) fn new(mut stops: Vec<String>, include: bool) -> Self {
        stops.retain(|stop| !stop.is_empty());
        StopFilter { stops, held: String::new(), include }
    }

    /// What may be shown now, and the stop string that follows it if one is complete: the earliest, among those that
    /// start at one place the longest. Its own text is shown only if asked for, what comes after it never.
    pub(crate) fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, stop)| (*at, usize::MAX - stop.len())) {
            let mut shown = std::mem::take(&mut self.held);
            shown.truncate(if self.include { at + stop.len() } else { at });
            return (shown, Some(stop.clone()));
        }
        let may_start = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let at = self.held.char_indices().map(|(at, _)| at).find(|&at| may_start(&self.held[at..]));
        let held = at.map_or(String::new(), |at| self.held.split_off(at));
        (std::mem::replace(&mut self.held, held), None)
    }

    /// What was held back, which no stop string will complete now.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, Option<String>) {
        let mut filter = StopFilter::new(stops.iter().map(ToString::to_string).collect(), false);
        let mut shown = String::new();
        for piece in pieces {
            let (text, stop) = filter.push(piece);
            shown += &text;
            if stop.is_some() {
                return (shown, stop);
            }
        }
        (shown + &filter.finish(), None)
    }

    #[test]
    fn a_stop_string_across_pieces_is_found_and_not_shown() {
        assert_eq!(run(&["END"], ["one E", "N", "D two"]), ("one ".to_owned(), Some("END".to_owned())));
    }

    #[test]
    fn a_start_that_does_not_go_on_is_shown() {
        assert_eq!(run(&["END"], ["E", "NE", "Nd"]), ("ENENd".to_owned(), None));
    }

    #[test]
    fn only_a_possible_start_is_held_back() {
        let mut filter = StopFilter::new(vec!["aab".to_owned()], false);
        assert_eq!(filter.push("xaaa").0, "xa");
        assert_eq!(filter.push("c").0, "aac");
    }

    #[test]
    fn the_earliest_wins_and_then_the_longest() {
        assert_eq!(run(&["b", "abc", "ab"], ["xabc"]), ("x".to_owned(), Some("abc".to_owned())));
    }

    #[test]
    fn a_stop_string_is_shown_if_asked_for_and_nothing_after_it() {
        let mut filter = StopFilter::new(vec!["END".to_owned()], true);
        assert_eq!(filter.push("one E"), ("one ".to_owned(), None));
        assert_eq!(filter.push("ND two"), ("END".to_owned(), Some("END".to_owned())));
    }

    #[test]
    fn empty_stop_strings_stop_nothing() {
        assert_eq!(run(&[""], ["text"]), ("text".to_owned(), None));
    }

    proptest! {
        #[test]
        fn one_stop_string_is_found_where_a_search_of_the_whole_finds_it(
            stop in "[abé]{1,4}",
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
        ) {
            let whole = pieces.concat();
            let (shown, found) = run(&[&stop], pieces.iter().map(String::as_str));
            let expected = match whole.find(&stop) {
                Some(at) => (&whole[..at], Some(stop)),
                None => (whole.as_str(), None),
            };
            prop_assert_eq!((shown.as_str(), found), expected);
        }
    }
}
