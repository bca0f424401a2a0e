//! The code points that stand for bytes in a byte-level vocabulary (`spec/prompt.md` 3). Owns that bijection only.

use std::sync::LazyLock;

struct Alphabet {
    letters: [char; 256],
    /// Indexed by code point; the highest in use is U+0143.
    bytes: [Option<u8>; 0x144],
}

static ALPHABET: LazyLock<Alphabet> = LazyLock::new(|| {
    let mut letters = ['\0'; 256];
    let mut bytes = [None; 0x144];
    let mut spare = 0x100_u32;
    for byte in 0..=255_u8 {
        let code = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
            _ => {
                spare += 1;
                spare - 1
            }
        };
        letters[usize::from(byte)] = char::from_u32(code).expect("codes stay below U+0144");
        bytes[code as usize] = Some(byte);
    }
    Alphabet { letters, bytes }
});

/// The code point that stands for a byte.
pub(crate) fn letter(byte: u8) -> char {
    ALPHABET.letters[usize::from(byte)]
}

/// Appends `text`, each of its bytes written as a letter.
pub(crate) fn spell(text: &str, out: &mut String) {
    let letters = &ALPHABET.letters;
    out.extend(text.bytes().map(|b| letters[usize::from(b)]));
}

/// Appends the bytes that a token's text stands for. False, and nothing is appended, if a character stands for no byte.
pub(crate) fn unspell(token: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for c in token.chars() {
        let Some(byte) = ALPHABET.bytes.get(c as usize).copied().flatten() else {
            out.truncate(start);
            return false;
        };
        out.push(byte);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_letter_and_comes_back() {
        let all: String = (0..=255).map(letter).collect();
        let mut bytes = vec![7];
        assert!(unspell(&all, &mut bytes) && !unspell("a｜", &mut bytes));
        assert_eq!(bytes[1..], (0..=255).collect::<Vec<u8>>());
        assert_eq!([letter(b' '), letter(b'\n'), letter(0), letter(0xad)], ['Ġ', 'Ċ', 'Ā', 'Ń']);
    }
}
