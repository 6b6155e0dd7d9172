//! Whether a slice's input is zero in so many places that the first layer's products gain by skipping them.
//!
//! Decides for time alone: a product of finite numbers has the same bits either way. Where a few rows of an input are dense, it
//! is not looked at again for a while, so data without zeros pays nothing that could be measured. The lists, nearly as large as
//! the input, are made when a slice first meets such an input, and kept.

use crate::isa::Isa;
use crate::kernels::{Find, INPUT_SEGMENT, Nonzeros, Number, nonzeros};
use crate::network::{Form, Network};
use crate::panel::Panels;

/// Inputs and units that a layer has at least: below, its products are as short as the search.
const LEAST_INPUTS: usize = 32;
const LEAST_UNITS: usize = 32;
/// The share of numbers that are not zero up to which forward skips: a term costs a row alone a third more than one of a tile,
/// and the search a sixth of a product by 100 units; beside a neighbour on the same core both are slower. Short rows cost more:
/// with 64 inputs, half of them zero, a step took an eighth longer.
const FORWARD: f64 = 0.55;
const FORWARD_SHORT: f64 = 0.3;
/// Inputs of a row that is not short.
const LONG: usize = 256;
/// The share of groups' rows up to which the weight gradient skips.
const GRADIENT: f64 = 0.7;
/// Rows that are looked at, and how many batches go by until the next look where they were dense.
const ROWS_LOOKED_AT: usize = 8;
const PAUSE: u32 = 64;
/// Numbers of a block's row that are worth the reload of the sums.
const LEAST_PLACES: f64 = 12.0;

/// What is known of the zeros of a slice's input.
pub struct Sparsity<T> {
    /// Rows that the slice may have.
    capacity: usize,
    /// Made when it is first needed.
    found: Option<Nonzeros<T>>,
    forward: bool,
    gradient: bool,
    pause: u32,
}

impl<T: Number> Sparsity<T> {
    /// Nothing yet; none where the first layer is not one whose products skip.
    pub fn new(network: &Network<T>, capacity: usize) -> Option<Self> {
        let first = &network.layers[0];
        let large = first.inputs >= LEAST_INPUTS && first.outputs >= LEAST_UNITS;
        let skips = large && first.form == Form::Wide && network.pair_kernels.is_none();
        skips.then_some(Sparsity { capacity, found: None, forward: false, gradient: false, pause: 0 })
    }

    /// Looks at a new input.
    pub fn look(&mut self, isa: Isa, input: &Panels<T>) {
        let known = self.forward || self.gradient;
        (self.forward, self.gradient) = (false, false);
        if !known && self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.pause = PAUSE;
        let share = share_of_nonzeros(input);
        let limit = if input.lanes() < LONG { FORWARD_SHORT } else { FORWARD };
        if !known && share > limit {
            return;
        }
        if self.found.is_none() {
            // Without the room everything is multiplied. A block less than there is room for is found.
            let most = (self.capacity * input.lanes()) as f64 * limit;
            let most = most as usize + INPUT_SEGMENT;
            self.found = Nonzeros::new(self.capacity, input.lanes(), most, input.geometry()).ok();
        }
        let Some(found) = &mut self.found else { return };
        let block = (LEAST_PLACES / share.max(1e-9)) as usize;
        let block = block.clamp(nonzeros::LEAST_BLOCK, INPUT_SEGMENT).next_power_of_two();
        T::kernels(isa).find(&mut Find { a: input.view(), block, into: found });
        if !found.is_whole() {
            return;
        }
        let rows = input.rows() as f64;
        self.forward = found.count() as f64 <= limit * rows * input.lanes() as f64;
        self.gradient = found.members() as f64 <= GRADIENT * rows * found.groups() as f64;
    }

    /// For forward through the first layer, where that skips.
    pub fn forward(&self) -> Option<&Nonzeros<T>> {
        self.found.as_ref().filter(|_| self.forward)
    }

    /// For its weight gradient.
    pub fn gradient(&self) -> Option<&Nonzeros<T>> {
        self.found.as_ref().filter(|_| self.gradient)
    }
}

/// The share of the first rows' numbers that are not zero.
fn share_of_nonzeros<T: Number>(input: &Panels<T>) -> f64 {
    let rows = input.rows().min(ROWS_LOOKED_AT);
    let in_panel = |p: usize| input.panel(p)[..rows * input.width(p)].iter().filter(|&&x| x != T::ZERO).count();
    let count: usize = (0..input.panels()).map(in_panel).sum();
    count as f64 / (rows * input.lanes()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;
    use crate::panel::Geometry;

    const ROWS: usize = 40;
    const LANES: usize = 320;

    fn network(features: usize, units: usize) -> Network<f32> {
        let specs = [LayerSpec::plain(units, Activation::Relu), LayerSpec::plain(3, Activation::Softmax)];
        Network::new(features, &specs, Loss::CrossEntropy, Isa::Scalar).unwrap()
    }

    /// Zero but in every `step`-th lane; from row `dense` on nowhere.
    fn input(step: usize, dense: usize) -> Panels<f32> {
        input_of(LANES, step, dense)
    }

    fn input_of(lanes: usize, step: usize, dense: usize) -> Panels<f32> {
        let mut panels = Panels::zeroed(ROWS, lanes, Geometry { lanes: 1 }, "test").unwrap();
        for (row, lane) in (0..ROWS).flat_map(|row| (0..lanes).map(move |lane| (row, lane))) {
            panels.set(row, lane, if lane % step == 0 || row >= dense { 1.0 } else { 0.0 });
        }
        panels
    }

    fn look(sparsity: &mut Sparsity<f32>, input: &Panels<f32>) -> (bool, bool) {
        sparsity.look(Isa::Scalar, input);
        (sparsity.forward().is_some(), sparsity.gradient().is_some())
    }

    #[test]
    fn inputs_that_are_mostly_zero_are_skipped_and_others_are_not() {
        let mut sparsity = Sparsity::new(&network(LANES, 100), ROWS).unwrap();
        let (thin, dense) = (input(8, ROWS), input(1, ROWS));
        assert_eq!(look(&mut sparsity, &thin), (true, true));
        assert_eq!(sparsity.forward().unwrap().count(), ROWS * LANES / 8);
        assert_eq!(look(&mut sparsity, &input(2, ROWS)), (true, false), "each group of two has one");
        assert_eq!(look(&mut sparsity, &input(8, ROWS_LOOKED_AT)), (false, false), "dense behind the rows looked at");
        assert_eq!(look(&mut sparsity, &thin), (false, false), "not looked at for a while");
        (1..PAUSE).for_each(|_| assert_eq!(look(&mut sparsity, &thin), (false, false)));
        assert_eq!(look(&mut sparsity, &thin), (true, true));
        assert_eq!(look(&mut sparsity, &dense), (false, false));
        (0..PAUSE).for_each(|_| assert_eq!(look(&mut sparsity, &dense), (false, false)));
        assert_eq!(look(&mut sparsity, &dense), (false, false));
    }

    #[test]
    fn short_rows_need_more_zeros() {
        for (step, skips) in [(2, false), (4, true)] {
            let mut sparsity = Sparsity::new(&network(80, 40), ROWS).unwrap();
            assert_eq!(look(&mut sparsity, &input_of(80, step, ROWS)), (skips, skips), "{step}");
        }
    }

    #[test]
    fn small_layers_and_those_whose_lanes_are_inputs_are_not_looked_at() {
        for (features, units) in [(LEAST_INPUTS - 1, 100), (100, LEAST_UNITS - 1), (20_000, 40)] {
            assert!(Sparsity::new(&network(features, units), ROWS).is_none(), "{features} x {units}");
        }
    }
}
