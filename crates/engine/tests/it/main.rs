//! The crate from outside: sessions, snapshots and the door over a fake model, and the same rules over the real one.

mod active;
mod best;
mod block;
mod constraint;
mod cpu;
mod draft;
mod engine;
mod fake;
mod fork;
mod kvcrash;
mod kvstore;
mod session;
mod snapshot;
mod support;
