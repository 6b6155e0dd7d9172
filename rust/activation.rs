//! The activation functions: names, parameters, and what their backward reads.
//!
//! Here stands what a function is; `kernels/epilogue.rs` computes it.

use crate::error::Error;

/// A function applied to every pre-activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `z`
    Identity,
    /// `max(z, 0)`; NaN passes on.
    Relu,
    /// `z` where positive, else `slope * z`.
    LeakyRelu {
        /// At least 0, so that the sign of the result is the sign of z.
        slope: f64,
    },
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-z))`
    Sigmoid,
    /// `exp(z)`: an output, the mean of counts whose logarithm a network gives.
    Exponential,
    /// `exp(z)` over its sum in the row: an output, never a hidden layer.
    Softmax,
}

impl Activation {
    /// The function called `name`; `parameter` is leaky relu's slope.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name or a slope that is negative or not finite.
    pub fn parse(name: &str, parameter: f64) -> Result<Self, Error> {
        Ok(match name {
            "identity" => Activation::Identity,
            "relu" => Activation::Relu,
            "leaky_relu" if parameter >= 0.0 && parameter.is_finite() => Activation::LeakyRelu { slope: parameter },
            "leaky_relu" => return Err(Error::expected("leaky_relu", "a finite slope of at least 0", parameter)),
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "exponential" => Activation::Exponential,
            "softmax" => Activation::Softmax,
            _ => {
                let names = "one of identity, relu, leaky_relu, tanh, sigmoid, exponential, softmax";
                return Err(Error::expected("activation", names, format!("{name:?}")));
            }
        })
    }

    /// Whether f(0) is not 0, so that padding must be cleared after it.
    pub fn stains_padding(self) -> bool {
        matches!(self, Activation::Sigmoid | Activation::Exponential)
    }
}
