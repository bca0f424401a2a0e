//! The server from outside: grammars over random logits, requests to the router over a model that plays scripts, over the
//! miniature, and over sockets.

mod access;
mod affinity;
mod blocks;
mod chat;
mod completions;
mod cutting;
mod disconnect;
mod drain;
mod grammar;
mod http;
mod live;
mod malformed;
mod messages;
mod replay;
mod responses;
mod spoken;
mod support;
mod utilities;
