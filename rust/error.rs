//! What can go wrong, without a word of Python.
//!
//! A message names the argument, what was expected and what came: `W2: expected shape (7, 20), got (7, 21)`.
//! `python/mod.rs` is the one place that turns these into exceptions.

use std::fmt;

/// Every failure of the crate.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// An argument has a wrong value or shape.
    Value(String),
    /// An argument has a wrong type.
    Type(String),
    /// Memory for `what` could not be had.
    Memory {
        /// What was to be held there.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
    },
    /// Training left the finite numbers.
    Divergence {
        /// Steps taken when it was seen, from 1.
        step: u64,
        /// The first layer with a number that is not finite, from 1.
        layer: usize,
    },
    /// The caller asked to stop.
    Interrupted,
    /// A thread panicked: a defect in this crate, with its message.
    Panic(String),
}

impl Error {
    /// A wrong value.
    pub fn value(message: impl Into<String>) -> Self {
        Error::Value(message.into())
    }

    /// `argument: expected ..., got ...`
    pub fn expected(argument: impl fmt::Display, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Value(format!("{argument}: expected {expected}, got {got}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Value(message) | Error::Type(message) => f.write_str(message),
            Error::Memory { what, bytes } => write!(f, "{what}: {bytes} bytes could not be allocated"),
            Error::Divergence { step, layer } => write!(
                f,
                "training diverged at step {step}: layer {layer} is the first whose numbers are not finite; \
                 a smaller learning_rate or scaled inputs may help"
            ),
            Error::Interrupted => f.write_str("interrupted"),
            Error::Panic(message) => write!(f, "internal error in lamella's core (please report it): {message}"),
        }
    }
}

impl std::error::Error for Error {}
