//! Stage `select`.
use crate::backend::Cuda;
use crate::device::Buffer;
use ds4_model::{Compressed, LowRank, Queries, Result, Step};
pub(crate) fn select(
    _: &mut Cuda,
    _: &Step<Buffer>,
    _: &LowRank<Buffer>,
    _: &Queries<Buffer>,
    _: &Compressed<Buffer>,
    _: &Buffer,
) -> Result<()> {
    unimplemented!()
}
