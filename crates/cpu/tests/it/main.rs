//! Whole forwards of the CPU backend against goldens that transformers computed, and against themselves.

mod draft;
mod golden;
mod invariance;
mod recipes;
