//! Which loss is minimised: names, parameters, and the outputs and targets that each goes with.

use crate::activation::Activation;
use crate::error::Error;

/// What training minimises, per sample, before the mean over the batch.
///
/// `z` are logits, `y` targets; sums run over a sample's outputs. `canonical.rs` and `losses.rs` have the formulas and
/// their sources.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// `sum max(z, 0) - z y + log(1 + exp(-|z|))`: cross-entropy of sigmoid outputs.
    BinaryCrossEntropy,
    /// The same with targets `y (1 - smoothing) + smoothing / 2`, the loss of a 1 times `positive`.
    WeighedBinaryCrossEntropy {
        /// In [0, 1].
        smoothing: f64,
        /// One number an output, at least 0.
        positive: Vec<f64>,
    },
    /// `sum y (log(sum exp z) - z)`: cross-entropy of a softmax.
    CrossEntropy,
    /// The same with targets `y (1 - smoothing) + smoothing / outputs`.
    SmoothedCrossEntropy {
        /// In [0, 1].
        smoothing: f64,
    },
    /// `sum a (1 - p)^gamma (-log p)`, where p is the probability that a sigmoid gives to what is so.
    BinaryFocal {
        /// At least 0.
        gamma: f64,
        /// a where y is 1.
        positive: f64,
        /// a where y is 0.
        negative: f64,
    },
    /// `alpha (1 - p)^gamma (-log p)`, where p is the probability that a softmax gives to the class.
    Focal {
        /// At least 0.
        gamma: f64,
        /// One number a class, at least 0.
        alpha: Vec<f64>,
    },
    /// `sum max(0, 1 - (2 y - 1) z)`, or of its square.
    Hinge {
        /// Whether the square is taken.
        squared: bool,
    },
    /// `sum over the other classes j of max(0, 1 - z[class] + z[j])`, or of its square.
    MultiMargin {
        /// Whether the square is taken.
        squared: bool,
    },
    /// `sum (z - y)^2 / 2`
    SquaredError,
    /// `sum |z - y|`
    AbsoluteError,
    /// `sum (z - y)^2 / 2` up to a distance of delta, `delta (|z - y| - delta / 2)` beyond.
    Huber {
        /// Above 0.
        delta: f64,
    },
    /// `sum exp(z) - y z`
    Poisson,
    /// The cross-entropy of sigmoid outputs, probabilities held within eps of 0 and 1; targets are 0 and 1. `scikit.rs` has this
    /// and the next two.
    BoundedBinaryCrossEntropy,
    /// The cross-entropy of a softmax with one class, probabilities held within eps of 0 and 1.
    BoundedCrossEntropy,
    /// `sum exp(z) - y + y log(y / exp(z))`
    PoissonDeviance,
    /// `sum max(q (y - z), (q - 1) (y - z))`; each target has as many outputs as there are quantiles, side by side.
    Quantile {
        /// Each in (0, 1).
        quantiles: Vec<f64>,
    },
    /// The host's: it sees a whole batch's logits, and no kernel knows it.
    Custom,
}

impl Loss {
    /// The loss called `name` with its parameters, in the order of the fields above.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, and for parameters that are out of range, too few or too many.
    pub fn parse(name: &str, parameters: &[f64]) -> Result<Self, Error> {
        let wrong = || Error::expected("loss", format!("parameters that {name} has"), format!("{parameters:?}"));
        let not_negative = |x: &[f64]| x.iter().all(|x| (0.0..f64::INFINITY).contains(x));
        let loss = match (name, parameters) {
            ("binary_cross_entropy", []) => Loss::BinaryCrossEntropy,
            ("weighed_binary_cross_entropy", [smoothing, positive @ ..]) => {
                Loss::WeighedBinaryCrossEntropy { smoothing: *smoothing, positive: positive.to_vec() }
            }
            ("cross_entropy", []) => Loss::CrossEntropy,
            ("smoothed_cross_entropy", &[smoothing]) => Loss::SmoothedCrossEntropy { smoothing },
            ("binary_focal", &[gamma, positive, negative]) => Loss::BinaryFocal { gamma, positive, negative },
            ("focal", [gamma, alpha @ ..]) => Loss::Focal { gamma: *gamma, alpha: alpha.to_vec() },
            ("hinge", &[squared]) => Loss::Hinge { squared: squared != 0.0 },
            ("multi_margin", &[squared]) => Loss::MultiMargin { squared: squared != 0.0 },
            ("squared_error", []) => Loss::SquaredError,
            ("absolute_error", []) => Loss::AbsoluteError,
            ("huber", &[delta]) => Loss::Huber { delta },
            ("poisson", []) => Loss::Poisson,
            ("bounded_binary_cross_entropy", []) => Loss::BoundedBinaryCrossEntropy,
            ("bounded_cross_entropy", []) => Loss::BoundedCrossEntropy,
            ("poisson_deviance", []) => Loss::PoissonDeviance,
            ("custom", []) => Loss::Custom,
            ("quantile", quantiles @ [_, ..]) => Loss::Quantile { quantiles: quantiles.to_vec() },
            _ => {
                let names = "one of binary_cross_entropy, weighed_binary_cross_entropy, cross_entropy, \
                             smoothed_cross_entropy, binary_focal, focal, hinge, multi_margin, squared_error, \
                             absolute_error, huber, poisson, quantile, custom, with its parameters";
                return Err(Error::expected("loss", names, format!("{name:?} with {parameters:?}")));
            }
        };
        let fits = not_negative(parameters)
            && match &loss {
                Loss::WeighedBinaryCrossEntropy { smoothing, .. } | Loss::SmoothedCrossEntropy { smoothing } => {
                    *smoothing <= 1.0
                }
                Loss::Huber { delta } => *delta > 0.0,
                Loss::Quantile { quantiles } => quantiles.iter().all(|&q| q > 0.0 && q < 1.0),
                _ => true,
            };
        if fits { Ok(loss) } else { Err(wrong()) }
    }

    /// Whether it can train a network whose last layer has so many outputs and this activation.
    ///
    /// # Errors
    /// [`Error::Value`] where it cannot.
    pub fn check(&self, output: Activation, outputs: usize) -> Result<(), Error> {
        let (activation, numbers) = match self {
            Loss::BinaryCrossEntropy | Loss::BinaryFocal { .. } => (Activation::Sigmoid, outputs),
            Loss::WeighedBinaryCrossEntropy { positive, .. } => (Activation::Sigmoid, positive.len()),
            Loss::CrossEntropy | Loss::SmoothedCrossEntropy { .. } => (Activation::Softmax, outputs),
            Loss::Focal { alpha, .. } => (Activation::Softmax, alpha.len()),
            Loss::BoundedBinaryCrossEntropy => (Activation::Sigmoid, outputs),
            Loss::BoundedCrossEntropy => (Activation::Softmax, outputs),
            Loss::Poisson | Loss::PoissonDeviance => (Activation::Exponential, outputs),
            Loss::Quantile { quantiles } => (Activation::Identity, outputs.next_multiple_of(quantiles.len())),
            Loss::Custom => (output, outputs),
            _ => (Activation::Identity, outputs),
        };
        if activation != output {
            let expected = format!("the output that matches it, {activation:?}");
            return Err(Error::expected(format!("loss {self:?}"), expected, format!("{output:?}")));
        }
        if numbers != outputs {
            let expected = format!("parameters for {outputs} outputs");
            return Err(Error::expected("loss", expected, format!("{self:?}")));
        }
        Ok(())
    }

    /// Whether a sample's target is one class.
    pub fn takes_classes(&self) -> bool {
        use Loss::{BoundedCrossEntropy, CrossEntropy, Focal, MultiMargin, SmoothedCrossEntropy};
        let bounded = *self == BoundedCrossEntropy;
        bounded || matches!(self, CrossEntropy | SmoothedCrossEntropy { .. } | Focal { .. } | MultiMargin { .. })
    }

    /// Whether targets are 0 and 1.
    pub fn takes_bits(&self) -> bool {
        use Loss::{BinaryCrossEntropy, BinaryFocal, BoundedBinaryCrossEntropy, Hinge, WeighedBinaryCrossEntropy};
        let bounded = *self == BoundedBinaryCrossEntropy;
        bounded
            || matches!(self, BinaryCrossEntropy | WeighedBinaryCrossEntropy { .. } | BinaryFocal { .. } | Hinge { .. })
    }

    /// Outputs that each target has.
    pub fn outputs_per_target(&self) -> usize {
        if let Loss::Quantile { quantiles } = self { quantiles.len() } else { 1 }
    }
}
