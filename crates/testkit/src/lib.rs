//! A model that plays scripts, for tests of everything above the model.

#![forbid(unsafe_code)]
