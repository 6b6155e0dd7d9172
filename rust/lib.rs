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
//!  rows  --> | gather -> A[0] -> ... -> A[L-1] -> logits |     | dW = dZ^T A, strip by strip      |
//!            |   forward: product + activation           | bar | the optimizer's rule on the      |  bar
//!            | loss -> dZ[L] -> ... -> dZ[1]             | ier | strip while it is in the cache   |  ier
//!            |   backward data: product * f'             |     | new weights -> mirror            |
//!            +-------------------------------------------+     +----------------------------------+
//! ```
//!
//! A hidden layer may do more than a product and an activation: `A[l] = dropout(f(norm(Z))) + A[l-1]`, each part optional
//! (`step/dress.rs`). A plain layer does all it does in the epilogue of its product; another one's panel is dressed right after
//! its last tile, and what backward multiplies by is kept. Masks are drawn from a counter of seed, step, layer, unit and sample.
//! Batch normalisation couples the samples: it cuts their way into stretches (`step/route.rs`), with a barrier at each end where the
//! statistics of chunks of 32 samples are merged in order. So does a loss written in Python, at the logits.
//!
//! A batch of too few samples for slices stays one, and each of its large products becomes a phase whose panels threads claim
//! (`step/share.rs`): each thread then reads its own part of the weights, and `plan.rs` says where that outweighs the barriers.
//!
//! In a small network working out what each kernel reads and writes takes about as long as some kernels. Where one thread takes
//! plain steps of it, one step's kernel calls are written down and made again in the further ones (`kernels/script.rs`,
//! `train/trainer/small.rs`).
//!
//! Where most of a slice's input is zero (one-hot columns, texts, pictures with empty borders), the first layer's products skip what
//! would be multiplied by it: `step/sparsity.rs` looks at the rows, `kernels/nonzeros.rs` lists what is left. While all numbers are finite, no bit depends on
//! it.
//!
//! A prediction can be walked back as well, down to the gradient of its inputs (`train/input_gradients.rs`): the same kernels, with the
//! running statistics as constants.
//!
//! What couples all weights has phases of its own behind these two, each with a barrier: the norm of the whole gradient, which
//! then stays in memory until the update; Muon's directions, a layer a claim; the lengths of weights that are to stay
//! short, and their shortening (`train/phase.rs` names them, `train/amendments.rs` says when they come).
//!
//! All operands lie in panels (`panel.rs`), and each product writes what the next one reads. The weights have a
//! second, transposed form (the mirror) for backward data.
//!
//! # More threads
//!
//! What a plain step costs on T threads, `W = sum n[l] n[l-1]` weights of e bytes, a core of F operations a second that reads
//! what another core wrote at B bytes a second:
//!
//! - Barriers: two, whatever L and T. Each costs the slowest core's way to one shared counter, about `T` times 50 ns, and a
//!   bookkeeping of a third of a microsecond that one thread does alone.
//! - Arithmetic: `6 m W / (T F)` (the first layer, which has no backward data, counts 4).
//! - First phase: every thread reads all weights and mirrors, `2 e W` bytes, of which all but one in T were written by others:
//!   `2 e W / B`, whatever T.
//! - Second phase: a thread's share of the weights lies in neighbouring layers; it reads their activations and gradients,
//!   about `e m (n[l-1] + n[l]) / B` for each layer it touches, and nobody else writes what it writes.
//!
//! Where threads share the products of a small batch, the first phase reads `2 e W / (T B)`, and has about `2 L` barriers.
//!
//! Threads stop helping where the first phase's reading takes as long as the arithmetic: `T = 3 m B / (e F)`. With F =
//! 117 GFLOP/s and B = 20 GB/s (measured on two cores of a Zen 4 that share no cache) that is 16 threads for a batch of 128 in
//! f32 and 130 for 1,024; in bfloat16, which halves e and doubles F, the same. Where W exceeds the last cache, T threads share the
//! memory's bandwidth B instead, and stop helping at `T^2 = 3 m B / (e F)`: 44 for a batch of 1,024 at 300 GB/s.
//! Slices of fewer than about 24 samples lose a tile's efficiency besides, so a small batch of a small network is better served by
//! fewer threads with a network each.
//!
//! A worker whose processor is busy with another program holds up all others at the barriers. That shows as sleep there, and a fit
//! then goes on with the number of workers that was fastest, and tries all of them again now and then (`train/pace.rs`).
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
//! correctly rounded operations. In mixed precision alone tiles add up in another order than vectors do ([`isa::tiles`]).

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
