//! The core of Lamella: dense L-layer networks trained on CPUs by fused kernels, with the same bits every time.
//!
//! # Alphabet
//!
//! `m` samples in a batch, `L` layers, `n[l]` units of layer l (`n[0]` features), `A[l]` activations, `Z[l]` pre-activations,
//! `dZ[l]`, `dW[l]`, `db[l]` gradients, `V` lanes of a vector, `P = 2V` the width of a panel, `T` threads, `k` the index
//! that a product sums over. Inside, samples are rows.
//!
//! # A step
//!
//! ```text
//!            slices of samples (any thread)                    parts of the weights (any thread)
//!  user's    +-------------------------------------------+     +----------------------------------+
//!  rows  --> | gather -> A[0] -> ... -> A[L-1] -> logits |     | dW = dZ^T A, block by block      |
//!            |   forward: product + activation           | bar | the optimizer's rule on the      |  bar
//!            | loss -> dZ[L] -> ... -> dZ[1]             | ier | block while it is in the cache   |  ier
//!            |   backward data: product * f'             |     | new weights -> mirror            |
//!            +-------------------------------------------+     +----------------------------------+
//! ```
//!
//! All operands lie in panels (`panel.rs`), and each product writes what the next one reads. The weights have a
//! second, transposed form (the mirror) for backward data.
//!
//! # Layers of the crate; imports point down
//!
//! `python -> train -> step -> plan -> {network, data} -> kernels -> {panel, activation} -> isa -> error`, with `rng`, `memory` and
//! `threads` at the bottom; `limits` drives kernels that measure the machine. `unsafe` stays in `isa/`, `kernels/`, `panel.rs`, `threads.rs` and `python/arrays.rs`.
//!
//! # The same bits
//!
//! A result depends neither on the number of threads nor on the instruction set: sums have a fixed order
//! ([`kernels`]), random numbers come from a counter ([`rng`]), and the transcendental functions are made of exact and
//! correctly rounded operations.

pub mod activation;
pub mod data;
pub mod error;
pub mod isa;
pub mod kernels;
pub mod limits;
pub mod memory;
pub mod network;
pub mod panel;
pub mod plan;
pub mod rng;
pub mod step;
pub mod threads;
pub mod train;

#[cfg(feature = "python")]
mod python;
