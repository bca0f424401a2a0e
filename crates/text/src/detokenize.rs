//! Bytes of sampled tokens into whole characters. Owns the few bytes of a character that has not arrived completely.

/// Incremental lossy UTF-8: what [`Detokenizer::push`] and [`Detokenizer::finish`] return, joined, is
/// `String::from_utf8_lossy` of everything pushed, however it was cut.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// The start of one character: at most three bytes between calls.
    held: Vec<u8>,
}

impl Detokenizer {
    /// Nothing held back.
    pub fn new() -> Self {
        Self::default()
    }

    /// The characters that `bytes` completes. An incomplete one at the end waits (`spec/prompt.md` 4).
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut out = String::with_capacity(self.held.len());
        let mut at = 0;
        loop {
            let rest = &self.held[at..];
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    at = self.held.len();
                    break;
                }
                Err(error) => error,
            };
            out.push_str(&String::from_utf8_lossy(&rest[..error.valid_up_to()]));
            at += error.valid_up_to();
            let Some(bad) = error.error_len() else { break };
            out.push(char::REPLACEMENT_CHARACTER);
            at += bad;
        }
        self.held.drain(..at);
        out
    }

    /// What was held back, which nothing will complete now.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_a_character_waits_for_its_other_half() {
        let mut d = Detokenizer::new();
        assert_eq!(d.push(b"a\xe2\x82"), "a");
        assert_eq!(d.push(b"\xac!\xf0"), "€!");
        assert_eq!(d.finish(), "\u{fffd}");
        assert_eq!(d.finish(), "");
    }

    proptest! {
        #[test]
        fn any_cutting_of_any_bytes_gives_the_lossy_text(parts in prop::collection::vec(prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(&b"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0"[..])], 0..6), 0..12)) {
            let mut d = Detokenizer::new();
            let mut text: String = parts.iter().map(|p| d.push(p)).collect();
            text += &d.finish();
            let whole = parts.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
