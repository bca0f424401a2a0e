//! A reader over the header's bytes that cannot run past their end. Owns the primitive little-endian types and strings;
//! allocates nothing but error texts.

use bytes::Bytes;

use crate::error::Fault;

/// A place in the file. Every `take` is checked against what is left, so a count that lies costs nothing.
pub(crate) struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, n: u64) -> Result<&'a [u8], Fault> {
        let n = usize::try_from(n).ok().filter(|&n| n <= self.left()).ok_or_else(|| {
            Fault::new(
                format!("{n} bytes wanted at offset {}", self.at),
                format!("at most {} left in the file", self.left()),
            )
        })?;
        let out = &self.bytes[self.at..][..n];
        self.at += n;
        Ok(out)
    }

    /// The bytes between `start` and here, shared with the file.
    pub(crate) fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start..self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N as u64)?.try_into().expect("take returns as many bytes as asked"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub(crate) fn str(&mut self) -> Result<&'a str, Fault> {
        let n = self.u64()?;
        let start = self.at;
        std::str::from_utf8(self.take(n)?).map_err(|e| {
            Fault::new(format!("a string at offset {start} that breaks off at its byte {}", e.valid_up_to()), "UTF-8")
        })
    }

    /// Walks over `n` strings. The header's tokenizer has a quarter of a million, most of a few bytes: the sound ones pass
    /// through a bare loop, and only what it stumbles over is looked at again for the message.
    pub(crate) fn skip_strs(&mut self, n: u64) -> Result<(), Fault> {
        let mut rest = &self.bytes[self.at..];
        for _ in 0..n {
            let Some((_, after)) =
                split_str(rest).filter(|(text, _)| text.is_ascii() || std::str::from_utf8(text).is_ok())
            else {
                self.at = self.bytes.len() - rest.len();
                return self.str().map(drop);
            };
            rest = after;
        }
        self.at = self.bytes.len() - rest.len();
        Ok(())
    }

    /// A count of things of at least `smallest` bytes each, all of which must still fit.
    pub(crate) fn count(&mut self, smallest: u64) -> Result<u64, Fault> {
        let n = self.u64()?;
        self.fits(n, smallest)?;
        Ok(n)
    }

    pub(crate) fn fits(&self, n: u64, smallest: u64) -> Result<(), Fault> {
        let most = self.left() as u64 / smallest;
        if n > most {
            return Err(Fault::new(
                format!("a count of {n}"),
                format!("at most {most} in the {} bytes left", self.left()),
            ));
        }
        Ok(())
    }
}

/// A length, that many bytes, and what follows; `None` if they are not all there.
#[inline]
pub(crate) fn split_str(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (n, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*n)).ok()?)
}
