//! The server from outside: grammars over random logits, requests to the router over a model that plays scripts, and over
//! the miniature.

mod chat;
mod cutting;
mod grammar;
mod messages;
mod replay;
mod responses;
mod spoken;
mod support;
