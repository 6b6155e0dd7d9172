//! The optimizers: parameters, and each step's constants for the rules in `kernels/update.rs`.

use crate::error::Error;
use crate::isa::Portable;
use crate::kernels::{Number, Rule, math};
use crate::network::Progress;

/// What optimizers' state is called ([`Optimizer::state_name`]), and how many numbers a weight has in it.
const STATES: [(&str, usize); 22] = [
    ("velocity", 1),
    ("adam_hat", 2),
    ("sgd", 0),
    ("momentum", 1),
    ("adam", 2),
    ("amsgrad", 3),
    ("nadam", 2),
    ("rmsprop", 1),
    ("rmsprop_momentum", 2),
    ("rmsprop_centered", 3),
    ("adagrad", 1),
    ("lion", 1),
    ("muon_sgd", 1),
    ("muon_momentum", 1),
    ("muon_adam", 2),
    ("muon_amsgrad", 3),
    ("muon_nadam", 2),
    ("muon_rmsprop", 1),
    ("muon_rmsprop_momentum", 2),
    ("muon_rmsprop_centered", 3),
    ("muon_adagrad", 1),
    ("muon_lion", 1),
];

/// The state of this name, and how many numbers a weight has in it: for state that comes from outside.
pub fn state_of(name: &str) -> Option<(&'static str, usize)> {
    STATES.into_iter().find(|(known, _)| *known == name)
}

/// An optimizer with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay: a weight loses `learning_rate weight_decay` of itself in a step.
    pub weight_decay: f64,
    /// The rule.
    pub kind: Kind,
}

/// The rules, with what is their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Gradient descent, with momentum where that is not 0.
    Sgd {
        /// What is kept of the velocity.
        momentum: f64,
        /// Whether to look ahead.
        nesterov: bool,
    },
    /// Gradient descent whose velocity has the rate in it, as in scikit-learn.
    Velocity {
        /// What is kept of the velocity; 1 keeps all of it.
        momentum: f64,
        /// Whether to look ahead.
        nesterov: bool,
    },
    /// Adam in the more efficient order at the end of its paper's section 2, as in scikit-learn: epsilon is added before the
    /// second moment's bias is corrected.
    AdamHat {
        /// The moments.
        moments: Moments,
    },
    /// Adam (Kingma and Ba 2015).
    Adam {
        /// The moments.
        moments: Moments,
        /// Whether to divide by the greatest second moment so far.
        amsgrad: bool,
    },
    /// NAdam (Dozat 2016).
    Nadam {
        /// The moments.
        moments: Moments,
        /// How fast the momentum grows to beta1.
        momentum_decay: f64,
    },
    /// RMSprop.
    RmsProp {
        /// What is kept of the mean square.
        alpha: f64,
        /// Keeps the quotient finite.
        epsilon: f64,
        /// What is kept of the velocity.
        momentum: f64,
        /// Whether the mean's square is taken off.
        centered: bool,
    },
    /// Adagrad.
    Adagrad {
        /// Keeps the quotient finite.
        epsilon: f64,
        /// The rate is divided by one plus this times the steps before.
        rate_decay: f64,
    },
    /// Lion.
    Lion {
        /// The share of the moment in the step's direction.
        beta1: f64,
        /// The moment's decay.
        beta2: f64,
    },
}

/// Decay of Adam's moments, and its epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The first moment's decay.
    pub beta1: f64,
    /// The second moment's decay.
    pub beta2: f64,
    /// Keeps the quotient finite.
    pub epsilon: f64,
}

impl Moments {
    fn check(&self) -> Result<(), Error> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("epsilon", self.epsilon)
    }
}

impl Optimizer {
    /// Plain gradient descent.
    pub fn descent(learning_rate: f64) -> Self {
        Optimizer { learning_rate, weight_decay: 0.0, kind: Kind::Sgd { momentum: 0.0, nesterov: false } }
    }

    /// Refuses an epsilon that is nothing in the numbers that train.
    ///
    /// # Errors
    /// [`Error::Value`], which names it.
    pub fn fits<T: Number>(&self) -> Result<(), Error> {
        let epsilon = match self.kind {
            Kind::Adam { moments, .. } | Kind::AdamHat { moments } | Kind::Nadam { moments, .. } => moments.epsilon,
            Kind::RmsProp { epsilon, .. } | Kind::Adagrad { epsilon, .. } => epsilon,
            Kind::Sgd { .. } | Kind::Velocity { .. } | Kind::Lion { .. } => return Ok(()),
        };
        if T::from_f64(epsilon) > T::ZERO {
            return Ok(());
        }
        Err(Error::expected("epsilon", format!("a number that {} holds above 0", T::NAME), epsilon))
    }

    /// Refuses parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Value`], which names the parameter.
    pub fn check(&self) -> Result<(), Error> {
        at_least_zero("learning_rate", self.learning_rate)?;
        at_least_zero("weight_decay", self.weight_decay)?;
        match self.kind {
            Kind::Sgd { momentum, nesterov } => {
                below_one("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(Error::expected("nesterov", "a momentum above 0 with it", "momentum 0"));
                }
                Ok(())
            }
            Kind::Velocity { momentum: 1.0, .. } => Ok(()),
            Kind::Velocity { momentum, .. } => below_one("momentum", momentum),
            Kind::Adam { moments, .. } | Kind::AdamHat { moments } => moments.check(),
            Kind::Nadam { moments, momentum_decay } => {
                moments.check()?;
                at_least_zero("momentum_decay", momentum_decay)
            }
            Kind::RmsProp { alpha, epsilon, momentum, .. } => {
                below_one("alpha", alpha)?;
                above_zero("epsilon", epsilon)?;
                below_one("momentum", momentum)
            }
            Kind::Adagrad { epsilon, rate_decay } => {
                above_zero("epsilon", epsilon)?;
                at_least_zero("rate_decay", rate_decay)
            }
            Kind::Lion { beta1, beta2 } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)
            }
        }
    }

    /// What its state is called: state is kept from call to call as long as this stays the same.
    pub fn state_name(&self) -> &'static str {
        match self.kind {
            Kind::Sgd { momentum: 0.0, .. } => "sgd",
            Kind::Sgd { .. } => "momentum",
            Kind::Velocity { .. } => "velocity",
            Kind::AdamHat { .. } => "adam_hat",
            Kind::Adam { amsgrad: false, .. } => "adam",
            Kind::Adam { amsgrad: true, .. } => "amsgrad",
            Kind::Nadam { .. } => "nadam",
            Kind::RmsProp { momentum: 0.0, centered: false, .. } => "rmsprop",
            Kind::RmsProp { centered: false, .. } => "rmsprop_momentum",
            Kind::RmsProp { .. } => "rmsprop_centered",
            Kind::Adagrad { .. } => "adagrad",
            Kind::Lion { .. } => "lion",
        }
    }

    /// The same for the optimizer of biases whose weight matrices follow Muon, and how many numbers a weight has in it.
    pub fn state_with_muon(&self) -> (&'static str, usize) {
        let own = self.state_name();
        let with_muon = |(name, _): &(&str, usize)| name.strip_prefix("muon_") == Some(own);
        STATES.into_iter().find(with_muon).expect("a name of the table")
    }

    /// How many numbers of state a weight has.
    pub fn states(&self) -> usize {
        // The rule knows, and its constants do not matter.
        self.rule::<f64>(&mut Progress::START.clone()).states()
    }

    /// The same at another learning rate.
    pub fn at(self, learning_rate: f64) -> Self {
        Optimizer { learning_rate, ..self }
    }

    /// What a step leaves of a weight by decoupled decay.
    pub fn keep<T: Number>(&self) -> T {
        T::from_f64(1.0 - self.learning_rate * self.weight_decay)
    }

    /// The next step's rule; counts the step in `progress`.
    pub fn step<T: Number>(&self, progress: &mut Progress) -> Rule<T> {
        progress.steps += 1;
        progress.state_steps += 1;
        self.rule(progress)
    }

    fn rule<T: Number>(&self, progress: &mut Progress) -> Rule<T> {
        let (t, rate) = (T::from_f64, self.learning_rate);
        match self.kind {
            Kind::Sgd { momentum: 0.0, .. } => Rule::Descent { rate: t(rate) },
            Kind::Sgd { momentum, nesterov } => Rule::Momentum { rate: t(rate), momentum: t(momentum), nesterov },
            Kind::Velocity { momentum, nesterov } => Rule::Velocity { rate: t(rate), momentum: t(momentum), nesterov },
            Kind::AdamHat { moments: Moments { beta1, beta2, epsilon } } => {
                progress.decay(beta1, beta2);
                Rule::Adam {
                    step: t(rate * (1.0 - progress.beta2_power).sqrt() / (1.0 - progress.beta1_power)),
                    scale: T::ONE,
                    beta1_rest: t(1.0 - beta1),
                    beta2: t(beta2),
                    beta2_rest: t(1.0 - beta2),
                    epsilon: t(epsilon),
                    greatest: false,
                }
            }
            Kind::Adam { moments: Moments { beta1, beta2, epsilon }, amsgrad } => {
                progress.decay(beta1, beta2);
                Rule::Adam {
                    step: t(rate / (1.0 - progress.beta1_power)),
                    scale: t(1.0 / (1.0 - progress.beta2_power).sqrt()),
                    beta1_rest: t(1.0 - beta1),
                    beta2: t(beta2),
                    beta2_rest: t(1.0 - beta2),
                    epsilon: t(epsilon),
                    greatest: amsgrad,
                }
            }
            Kind::Nadam { moments: Moments { beta1, beta2, epsilon }, momentum_decay } => {
                let step = progress.state_steps as f64;
                let mu = |t: f64| beta1 * (1.0 - 0.5 * power_of_0_96(t * momentum_decay));
                // The product of all mu takes beta1's power's place.
                progress.decay(mu(step), beta2);
                let next = mu(step + 1.0);
                Rule::Nadam {
                    gradient_step: t(rate * (1.0 - mu(step)) / (1.0 - progress.beta1_power)),
                    moment_step: t(rate * next / (1.0 - progress.beta1_power * next)),
                    scale: t(1.0 / (1.0 - progress.beta2_power).sqrt()),
                    beta1_rest: t(1.0 - beta1),
                    beta2: t(beta2),
                    beta2_rest: t(1.0 - beta2),
                    epsilon: t(epsilon),
                }
            }
            Kind::RmsProp { alpha, epsilon, momentum, centered } => Rule::RmsProp {
                rate: t(rate),
                alpha: t(alpha),
                alpha_rest: t(1.0 - alpha),
                epsilon: t(epsilon),
                momentum: t(momentum),
                velocity: momentum != 0.0,
                centered,
            },
            Kind::Adagrad { epsilon, rate_decay } => {
                let before = progress.state_steps.saturating_sub(1) as f64;
                Rule::Adagrad { rate: t(rate / (1.0 + before * rate_decay)), epsilon: t(epsilon) }
            }
            Kind::Lion { beta1, beta2 } => Rule::Lion {
                rate: t(rate),
                beta1: t(beta1),
                beta1_rest: t(1.0 - beta1),
                beta2: t(beta2),
                beta2_rest: t(1.0 - beta2),
            },
        }
    }
}

/// `0.96^x`, by this crate's exponential: the same bits everywhere.
fn power_of_0_96(x: f64) -> f64 {
    const LN_0_96: f64 = -0.040_821_994_520_255_166;
    math::exp::<f64, _>(Portable::<1>, [x * LN_0_96])[0]
}

fn at_least_zero(name: &str, x: f64) -> Result<(), Error> {
    if x >= 0.0 && x.is_finite() { Ok(()) } else { Err(Error::expected(name, "a finite number of at least 0", x)) }
}

fn above_zero(name: &str, x: f64) -> Result<(), Error> {
    if x > 0.0 && x.is_finite() { Ok(()) } else { Err(Error::expected(name, "a finite number above 0", x)) }
}

fn below_one(name: &str, x: f64) -> Result<(), Error> {
    if (0.0..1.0).contains(&x) { Ok(()) } else { Err(Error::expected(name, "a number in [0, 1)", x)) }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Moments, Optimizer, STATES, state_of};

    #[test]
    fn every_state_is_known_by_its_name() {
        let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let sgd = |momentum| Kind::Sgd { momentum, nesterov: false };
        let adam = |amsgrad| Kind::Adam { moments, amsgrad };
        let rmsprop = |momentum, centered| Kind::RmsProp { alpha: 0.9, epsilon: 1e-8, momentum, centered };
        let kinds = [
            sgd(0.0),
            sgd(0.9),
            adam(false),
            adam(true),
            Kind::Nadam { moments, momentum_decay: 4e-3 },
            rmsprop(0.0, false),
            rmsprop(0.9, false),
            rmsprop(0.0, true),
            rmsprop(0.9, true),
            Kind::Adagrad { epsilon: 1e-10, rate_decay: 0.0 },
            Kind::Lion { beta1: 0.9, beta2: 0.99 },
        ];
        for kind in kinds {
            let optimizer = Optimizer { learning_rate: 0.1, weight_decay: 0.0, kind };
            let (name, states) = state_of(optimizer.state_name()).expect("a name of the table");
            assert_eq!((name, states), (optimizer.state_name(), optimizer.states()));
            assert_eq!(optimizer.state_with_muon(), (format!("muon_{name}").as_str(), states.max(1)));
        }
        assert!(STATES.iter().all(|(name, _)| state_of(name).is_some()) && state_of("Adam").is_none());
    }
}
