//! The crate from outside.

mod access;
mod disconnect;
mod drain;
mod grammar;
mod http;
mod live;
mod utilities;
