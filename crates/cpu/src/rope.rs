//! Rotation of a vector's tail by position (model.md 2.2).

/// Sine and cosine of each pair at `pos`: the angle is one float32 product, its functions are taken in float64.
pub(crate) fn angles(frequencies: &[f32], pos: u32) -> Vec<(f32, f32)> {
    let angle = |f: &f32| f64::from(pos as f32 * f).sin_cos();
    frequencies.iter().map(angle).map(|(sin, cos)| (sin as f32, cos as f32)).collect()
}

/// Rotates adjacent pairs of the tail of `row`.
pub(crate) fn rotate(row: &mut [f32], angles: &[(f32, f32)]) {
    let at = row.len() - 2 * angles.len();
    for (pair, (sin, cos)) in row[at..].chunks_mut(2).zip(angles) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos - b * sin, a * sin + b * cos);
    }
}

/// Undoes [`rotate`].
pub(crate) fn rotate_back(row: &mut [f32], angles: &[(f32, f32)]) {
    let at = row.len() - 2 * angles.len();
    for (pair, (sin, cos)) in row[at..].chunks_mut(2).zip(angles) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos + b * sin, b * cos - a * sin);
    }
}
