//! Responses.
pub(crate) struct Store;
impl Store {
    pub(crate) fn new(_: usize) -> Self {
        Store
    }
}
