//! Host memory seen as bytes, floats or rows of a step. Zeroed lazily by the system: an unused cache costs nothing.

use bytemuck::AnyBitPattern;

/// Bytes of a cache line: vectors that start on one are loaded and stored whole.
const LINE: usize = 64;

/// A buffer of the CPU backend; it starts on a cache line.
#[derive(Debug)]
pub struct Buffer {
    words: Vec<u64>,
    /// First word of the buffer.
    start: usize,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn zeroed(bytes: usize) -> Option<Buffer> {
        let n = bytes.checked_add(LINE)?.div_ceil(8);
        // `vec!` asks the system for zeroed pages but aborts when refused: ask first.
        Vec::<u64>::new().try_reserve_exact(n).ok()?;
        let words = vec![0; n];
        let start = words.as_ptr().align_offset(LINE).min(LINE / 8 - 1);
        Some(Buffer { words, start, bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words[self.start..])[..self.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words[self.start..])[..self.bytes]
    }

    /// The first `n` values.
    pub(crate) fn view<T: AnyBitPattern>(&self, n: usize) -> &[T] {
        bytemuck::cast_slice(&self.bytes()[..n * size_of::<T>()])
    }

    /// The first `n` values.
    pub(crate) fn view_mut<T: AnyBitPattern + bytemuck::NoUninit>(&mut self, n: usize) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.bytes_mut()[..n * size_of::<T>()])
    }

    /// The first `n` floats.
    pub(crate) fn floats(&self, n: usize) -> &[f32] {
        self.view(n)
    }

    /// The first `n` floats.
    pub(crate) fn floats_mut(&mut self, n: usize) -> &mut [f32] {
        self.view_mut(n)
    }
}
