//! Stage `experts`.
use crate::backend::Cuda;
use crate::device::Buffer;
use crate::weight::Weight;
use ds4_model::{ExpertWeights, Result, Routing, Step};
pub(crate) fn experts(
    _: &mut Cuda,
    _: &Step<Buffer>,
    _: &ExpertWeights<Weight>,
    _: &Buffer,
    _: &Routing<Buffer>,
    _: &Buffer,
    _: &Buffer,
) -> Result<()> {
    unimplemented!()
}
