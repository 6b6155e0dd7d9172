//! The activation functions: names, parameters, and what their backward reads.
//!
//! Here stands what a function is; `kernels/activate.rs` computes it.

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
    /// `scale z` where positive, else `scale alpha (exp(z) - 1)` (Clevert, Unterthiner and Hochreiter 2016); with the
    /// constants of Klambauer et al. 2017 it is selu.
    Elu {
        /// What the function tends to at minus infinity, but for the scale.
        alpha: f64,
        /// See above.
        scale: f64,
    },
    /// `z Phi(z)`, where Phi is the normal distribution's (Hendrycks and Gimpel 2016).
    Gelu,
    /// `z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2`
    GeluTanh,
    /// `z sigmoid(z)`, also called swish (Ramachandran, Zoph and Le 2017).
    Silu,
    /// `z tanh(softplus(z))` (Misra 2019).
    Mish,
    /// `log(1 + exp(z))`
    Softplus,
    /// `z / (1 + |z|)`
    Softsign,
    /// `z` held between -1 and 1.
    HardTanh,
    /// `z / 6 + 1 / 2` held between 0 and 1.
    HardSigmoid,
    /// `z` times hard sigmoid.
    HardSwish,
    /// `z` held between 0 and 6.
    Relu6,
}

/// The constants that keep mean 0 and variance 1 from layer to layer (Klambauer et al. 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

const NAMES: &str = "one of identity, relu, leaky_relu, elu, selu, gelu, gelu_tanh, silu, mish, softplus, softsign, \
                     hard_tanh, hard_sigmoid, hard_swish, relu6, tanh, sigmoid, exponential, softmax";

impl Activation {
    /// The function called `name` with its usual parameter.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name.
    pub fn named(name: &str) -> Result<Self, Error> {
        Activation::parse(name, if name == "leaky_relu" { 0.01 } else { 1.0 })
    }

    /// The function called `name`; `parameter` is leaky relu's slope and elu's alpha.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name or a parameter that is negative or not finite.
    pub fn parse(name: &str, parameter: f64) -> Result<Self, Error> {
        let fits = parameter >= 0.0 && parameter.is_finite();
        Ok(match name {
            "identity" => Activation::Identity,
            "relu" => Activation::Relu,
            "leaky_relu" if fits => Activation::LeakyRelu { slope: parameter },
            "leaky_relu" => return Err(Error::expected("leaky_relu", "a finite slope of at least 0", parameter)),
            "elu" if fits => Activation::Elu { alpha: parameter, scale: 1.0 },
            "elu" => return Err(Error::expected("elu", "a finite alpha of at least 0", parameter)),
            "selu" => Activation::Elu { alpha: SELU_ALPHA, scale: SELU_SCALE },
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            "silu" => Activation::Silu,
            "mish" => Activation::Mish,
            "softplus" => Activation::Softplus,
            "softsign" => Activation::Softsign,
            "hard_tanh" => Activation::HardTanh,
            "hard_sigmoid" => Activation::HardSigmoid,
            "hard_swish" => Activation::HardSwish,
            "relu6" => Activation::Relu6,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "exponential" => Activation::Exponential,
            "softmax" => Activation::Softmax,
            _ => return Err(Error::expected("activation", NAMES, format!("{name:?}"))),
        })
    }

    /// Whether f(0) is not 0, so that padding must be cleared after it.
    pub fn stains_padding(self) -> bool {
        matches!(self, Activation::Sigmoid | Activation::Exponential | Activation::Softplus | Activation::HardSigmoid)
    }

    /// Whether the derivative can be told from the result alone; of the others forward keeps it.
    pub fn is_told_by_its_result(self) -> bool {
        use Activation::{Exponential, Identity, LeakyRelu, Relu, Sigmoid, Softmax, Tanh};
        matches!(self, Exponential | Identity | Relu | LeakyRelu { .. } | Tanh | Sigmoid | Softmax)
    }
}
