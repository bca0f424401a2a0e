//! What a caller of the engine can run into. Texts of the model and of the device are passed on as they are.

/// Errors of sessions, requests and the engine thread. Cloneable, because one device failure ends many requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A request without any token to continue.
    #[error("prompt is empty, expected at least one token")]
    EmptyPrompt,
    /// A history that leaves no free position in the context.
    #[error("prompt has {found} tokens, expected fewer than the context of {context}")]
    ContextFull {
        /// Tokens asked for.
        found: usize,
        /// Tokens that a slot holds.
        context: u32,
    },
    /// An id outside the vocabulary.
    #[error("token id {id}, expected less than {n_vocab}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids of the model.
        n_vocab: usize,
    },
    /// A request parameter outside its range.
    #[error("{name}: found {found}, expected {expected}")]
    Parameter {
        /// Name of the field.
        name: &'static str,
        /// The value.
        found: String,
        /// The accepted range.
        expected: &'static str,
    },
    /// The model computed something that no token can be drawn from.
    #[error("logit of token {id} is {found}, expected a finite number")]
    Logits {
        /// First such id.
        id: u32,
        /// `NaN`, `inf` or `-inf`.
        found: String,
    },
    /// A constraint that no id satisfies, or that cannot follow the answer any further.
    #[error("constraint: {0}")]
    Constraint(String),
    /// A call of which the client has heard repeats itself without end.
    #[error("a tool call repeats itself after {0} tokens")]
    CallLoops(usize),
    /// A snapshot that cannot be restored here; the session is unchanged.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The store cannot be opened, or an object of it cannot be read by a tool. Never the end of a request.
    #[error("kv store: {0}")]
    KvStore(String),
    /// The caller's observer or flag asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The queue holds as many requests as it may.
    #[error("queue is full: {found} requests wait, expected fewer than {limit}")]
    QueueFull {
        /// Requests waiting.
        found: usize,
        /// Most that may wait.
        limit: usize,
    },
    /// A slot that does not exist.
    #[error("slot {found}, expected less than {slots}")]
    NoSuchSlot {
        /// The slot asked for.
        found: u32,
        /// Slots of the model.
        slots: u32,
    },
    /// A control message for a slot that is in the middle of a request.
    #[error("slot {0} is busy, expected it to be idle")]
    SlotBusy(u32),
    /// The model refused a step or a state.
    #[error("{0}")]
    Model(String),
    /// The device failed; the engine has stopped.
    #[error("{0}")]
    Device(String),
    /// The engine thread is gone; the text says why.
    #[error("engine has stopped: {0}")]
    Stopped(String),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<ds4_model::Error> for Error {
    fn from(error: ds4_model::Error) -> Self {
        match error {
            ds4_model::Error::Device { .. } => Error::Device(error.to_string()),
            other => Error::Model(other.to_string()),
        }
    }
}
