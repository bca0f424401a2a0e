//! Work that takes long enough to be noticed by others whose connections share the thread.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Bytes from which reading or tokenizing a text is such work.
pub(crate) const LONG: usize = 64 << 10;

/// Does `work` while another thread looks after the connections, if it is `long`.
pub(crate) fn aside<T>(long: bool, work: impl FnOnce() -> T) -> T {
    let many = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if long && many { block_in_place(work) } else { work() }
}
