//! The server from outside: requests to the router over a model that plays scripts, and over the miniature.

mod messages;
mod responses;
mod support;
