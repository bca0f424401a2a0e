//! Stage `attend`.
use crate::backend::Cuda;
use crate::device::Buffer;
use crate::weight::Weight;
use ds4_model::{LayerKv, Queries, Result, Step};
pub(crate) fn attend(
    _: &mut Cuda,
    _: &Step<Buffer>,
    _: &Weight,
    _: &Queries<Buffer>,
    _: &LayerKv<Buffer>,
    _: &Buffer,
    _: &Buffer,
) -> Result<()> {
    unimplemented!()
}
