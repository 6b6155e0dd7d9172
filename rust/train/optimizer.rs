//! The optimizers: parameters, and each step's constants for the rules in `kernels/update.rs`.

use crate::error::Error;
use crate::kernels::{Number, Rule};
use crate::network::Progress;

/// An optimizer with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Gradient descent, with momentum where that is not 0.
    Sgd {
        /// The learning rate.
        learning_rate: f64,
        /// What is kept of the velocity.
        momentum: f64,
        /// Whether to look ahead.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015).
    Adam {
        /// The learning rate.
        learning_rate: f64,
        /// The first moment's decay.
        beta1: f64,
        /// The second moment's decay.
        beta2: f64,
        /// Keeps the quotient finite.
        epsilon: f64,
    },
}

impl Optimizer {
    /// Refuses parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Value`], which names the parameter.
    pub fn check(&self) -> Result<(), Error> {
        let rate = |rate: f64| at_least_zero("learning_rate", rate);
        match *self {
            Optimizer::Sgd { learning_rate, momentum, nesterov } => {
                rate(learning_rate)?;
                below_one("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(Error::expected("nesterov", "a momentum above 0 with it", "momentum 0"));
                }
                Ok(())
            }
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
                rate(learning_rate)?;
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                if epsilon > 0.0 && epsilon.is_finite() {
                    Ok(())
                } else {
                    Err(Error::expected("epsilon", "a finite number above 0", epsilon))
                }
            }
        }
    }

    /// What its state is called: state is kept from call to call as long as this stays the same.
    pub fn state_name(&self) -> &'static str {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => "sgd",
            Optimizer::Sgd { .. } => "momentum",
            Optimizer::Adam { .. } => "adam",
        }
    }

    /// How many numbers of state a weight has.
    pub fn states(&self) -> usize {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => 0,
            Optimizer::Sgd { .. } => 1,
            Optimizer::Adam { .. } => 2,
        }
    }

    /// The next step's rule; counts the step in `progress`.
    pub fn step<T: Number>(&self, progress: &mut Progress) -> Rule<T> {
        progress.steps += 1;
        let t = T::from_f64;
        match *self {
            Optimizer::Sgd { learning_rate, momentum: 0.0, .. } => Rule::Descent { rate: t(learning_rate) },
            Optimizer::Sgd { learning_rate, momentum, nesterov } => {
                Rule::Momentum { rate: t(learning_rate), momentum: t(momentum), nesterov }
            }
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
                progress.beta1_power *= beta1;
                progress.beta2_power *= beta2;
                Rule::Adam {
                    step: t(learning_rate / (1.0 - progress.beta1_power)),
                    scale: t(1.0 / (1.0 - progress.beta2_power).sqrt()),
                    beta1_rest: t(1.0 - beta1),
                    beta2: t(beta2),
                    beta2_rest: t(1.0 - beta2),
                    epsilon: t(epsilon),
                }
            }
        }
    }
}

fn at_least_zero(name: &str, x: f64) -> Result<(), Error> {
    if x >= 0.0 && x.is_finite() { Ok(()) } else { Err(Error::expected(name, "a finite number of at least 0", x)) }
}

fn below_one(name: &str, x: f64) -> Result<(), Error> {
    if (0.0..1.0).contains(&x) { Ok(()) } else { Err(Error::expected(name, "a number in [0, 1)", x)) }
}
