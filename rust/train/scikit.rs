//! Training by the conventions of scikit-learn's multilayer perceptrons, where they differ from this crate's own.
//!
//! There the caller draws each epoch's order; the penalty of a batch is divided by its samples, or the sum of their weights; a
//! batch counts in its epoch by its samples, whatever their weights; a loss may be a mean over outputs whose gradient is a sum;
//! and a loss that is not finite is reported like any other. The step is the one of `trainer.rs`.

use super::Host;
use super::options::{Options, Scikit};
use super::penalty::{Penalty, add_gradient};
use super::stretch::Stretch;
use super::trainer::{Run, Task, Workspace};
use crate::data::Matrix;
use crate::error::Error;
use crate::kernels::Number;
use crate::network::Network;
use crate::step::TargetData;

/// Epochs over the rows of X and Y that an order names, batch after batch as they stand there: one in `order`, and where the host
/// `turns` as many more as it draws orders for ([`Host::turn`]), each of as many rows; the options' epochs are how many there may
/// be. Returns the last one's loss, which may be no finite number.
///
/// # Errors
/// [`Error::Value`] where an order is empty or names a row that is not there, or as for [`super::trainer::fit`], divergence
/// excepted.
#[allow(clippy::too_many_arguments)]
pub fn epochs<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    order: &[u32],
    turns: bool,
    options: &Options<'_>,
    scikit: Scikit,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    options.optimizer.check()?;
    options.optimizer.fits::<T>()?;
    if let Some(&row) = order.iter().find(|&&row| row as usize >= x.rows()) {
        return Err(Error::expected("order", format!("rows below {}", x.rows()), row));
    }
    if order.is_empty() {
        return Err(Error::expected("order", "at least one row", "none"));
    }
    network.prepare_state(options.optimizer.state_name(), options.optimizer.states())?;
    let epochs = if turns { options.epochs } else { 1 };
    let whole = Options { epochs, shuffle: false, report_every: 0, stretch: Stretch::WHOLE, ..*options };
    let options = Options { rows: Some(order), ..whole };
    let task = Task { updates: true, scikit: Some(scikit), turns };
    let (done, progress, norms) = Run::new(network, workspace, x, y, &options, task)?.execute(workspace, host);
    network.progress = progress;
    network.gradient_norms = norms;
    done.map(|(losses, _)| losses.last().copied().unwrap_or(f64::NAN))
}

/// The loss of all rows as one batch, its gradient left in the arena's [`GRADIENT`].
///
/// # Errors
/// As for [`epochs`].
pub fn objective<T: Number>(
    network: &mut Network<T>,
    workspace: &mut Workspace<T>,
    x: &Matrix<'_>,
    y: &TargetData<'_>,
    options: &Options<'_>,
    scikit: Scikit,
    host: &mut dyn Host,
) -> Result<f64, Error> {
    let options = Options { epochs: 1, batch_size: x.rows(), report_every: 0, ..*options };
    let task = Task { updates: false, scikit: Some(scikit), turns: false };
    let (done, ..) = Run::new(network, workspace, x, y, &options, task)?.execute(workspace, host);
    let loss = done?.0[0];
    let counts = options.weights.map_or(x.rows() as f64, |weights| weights.iter().sum());
    let l2 = if counts != 0.0 { scikit.alpha / counts } else { 0.0 };
    add_gradient(network, Penalty { l2, ..Penalty::default() });
    Ok(loss)
}
