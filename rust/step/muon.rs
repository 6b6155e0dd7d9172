//! Muon's directions: the momentum of each weight matrix, made nearly orthogonal by Newton and Schulz's iteration.
//!
//! `M = momentum M + (1 - momentum) G`, `U = (1 - momentum) G + momentum M` (Nesterov's look-ahead), `X = U / |U|`, then some
//! rounds of `A = X X^T, X = a X + (b A + c A^2) X`, which drive all singular values towards 1 (Jordan et al. 2024, as
//! in PyTorch's class of that name). Of a matrix and its transpose the taller one Y (n, k) is iterated, with the lesser size as
//! lanes: `A = Y^T Y` is a weight gradient of Y by Y, `A^2` and `Y B` are products, so nothing is turned
//! between rounds. A layer is one claim: its bits depend on nobody else.

use super::measure::{strided_total, sums_of};
use super::{DEPTH_BLOCK, blocks_of};
use crate::activation::Activation;
use crate::error::Error;
use crate::kernels::{Blend, Finish, Gradient, INPUT_SEGMENT, Number, Of, Pair, Product, Start, Turn};
use crate::network::{Form, Layer, Network};
use crate::panel::{Buffer, Panels, PanelsRef, Parts};

/// Muon with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// The learning rate, before it is adjusted to a matrix' shape.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What is kept of the momentum.
    pub momentum: f64,
    /// Whether to look ahead.
    pub nesterov: bool,
    /// a, b and c of the iteration.
    pub coefficients: [f64; 3],
    /// The least norm that is divided by.
    pub epsilon: f64,
    /// Rounds of the iteration.
    pub steps: usize,
    /// What a matrix' shape does to the rate.
    pub adjust: Adjust,
    /// Whether the iteration's matrices are rounded to bfloat16, as PyTorch's are.
    pub rounds: bool,
    /// Whether the first and the last layer are left to the other rule.
    pub hidden_only: bool,
}

/// How a matrix' shape adjusts the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjust {
    /// `sqrt(max(1, outputs / inputs))` (Jordan et al. 2024)
    Original,
    /// `0.2 sqrt(max(outputs, inputs))`: steps as large as AdamW's (Liu et al. 2025)
    MatchRmsAdamw,
    /// `sqrt(outputs / inputs)` (Bernstein 2025)
    SpectralUnclamped,
}

impl Muon {
    /// Refuses parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Value`], which names the parameter.
    pub fn check(&self) -> Result<(), Error> {
        let in_range = |name: &str, fits: bool, range: &str, x: f64| {
            if fits && x.is_finite() { Ok(()) } else { Err(Error::expected(name, range, x)) }
        };
        in_range("learning_rate", self.learning_rate >= 0.0, "a finite number of at least 0", self.learning_rate)?;
        in_range("weight_decay", self.weight_decay >= 0.0, "a finite number of at least 0", self.weight_decay)?;
        in_range("momentum", (0.0..1.0).contains(&self.momentum), "a number in [0, 1)", self.momentum)?;
        in_range("epsilon", self.epsilon > 0.0, "a finite number above 0", self.epsilon)?;
        self.coefficients.into_iter().try_for_each(|x| in_range("ns_coefficients", true, "finite numbers", x))?;
        if self.steps < MAX_STEPS {
            return Ok(());
        }
        Err(Error::expected("ns_steps", format!("fewer than {MAX_STEPS}"), self.steps))
    }
    /// Whether layer `l` of `layers` is its business.
    pub fn covers(&self, l: usize, layers: usize) -> bool {
        !self.hidden_only || (l > 0 && l + 1 < layers)
    }
    /// The rate of a layer's weights.
    pub fn rate(&self, layer: &Layer) -> f64 {
        let (outputs, inputs) = (layer.outputs as f64, layer.inputs as f64);
        self.learning_rate
            * match self.adjust {
                Adjust::Original => (outputs / inputs).max(1.0).sqrt(),
                Adjust::MatchRmsAdamw => 0.2 * outputs.max(inputs).sqrt(),
                Adjust::SpectralUnclamped => (outputs / inputs).sqrt(),
            }
    }
    /// What a step leaves of a weight by decoupled decay.
    pub fn keep(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }
}

/// The directions of all layers that are Muon's, and the order in which they are claimed.
pub struct Directions<T> {
    /// One a layer; empty where the layer is not Muon's.
    pub layers: Parts<Direction<T>>,
    /// The layers, the most work first.
    pub order: Vec<usize>,
}

impl<T: Number> Directions<T> {
    /// Room for the directions: what was kept of an earlier run of this network, where it serves.
    ///
    /// # Errors
    /// [`Error::Memory`] where they do not fit.
    pub fn of(network: &Network<T>, muon: &Muon, kept: Option<Self>) -> Result<Self, Error> {
        let count = network.layers.len();
        let mut order: Vec<usize> = (0..count).filter(|&l| muon.covers(l, count)).collect();
        let work = |l: usize| {
            let Layer { inputs, outputs, .. } = network.layers[l];
            inputs.min(outputs) as u128 * (inputs as u128 * outputs as u128)
        };
        order.sort_by_key(|&l| std::cmp::Reverse(work(l)));
        if let Some(kept) = kept.filter(|kept| kept.order == order) {
            return Ok(kept);
        }
        let of =
            |(l, layer)| if muon.covers(l, count) { Direction::new(network, layer) } else { Direction::none(network) };
        let layers = network.layers.iter().enumerate().map(of).collect::<Result<_, _>>()?;
        Ok(Directions { layers: Parts::new(layers), order })
    }
}

/// A layer's direction, with the matrices of the iteration; n and k are the greater and the lesser of its sizes.
pub struct Direction<T> {
    /// In the layer's form; what stands in the bias' places means nothing.
    pub numbers: Buffer<T>,
    /// Sums of squares, one an output.
    sums: Buffer<T>,
    /// Y, `(n, k)`
    tall: Panels<T>,
    /// The next Y, `(n, k)`
    next: Panels<T>,
    /// `Y^T Y`, `(k, k)`
    gram: Panels<T>,
    /// `b A + c A^2`, `(k, k)`
    polynomial: Panels<T>,
    /// For sums of several segments: `[n][P]`.
    totals: Buffer<T>,
}

/// Rounds are fewer than this, as PyTorch has it.
const MAX_STEPS: usize = 100;
const WHAT: &str = "optimizer: Muon's matrices";

impl<T: Number> Direction<T> {
    fn new(network: &Network<T>, layer: &Layer) -> Result<Self, Error> {
        let (n, k) = (layer.inputs.max(layer.outputs), layer.inputs.min(layer.outputs));
        let panels = |rows, lanes| Panels::zeroed(rows, lanes, network.geometry, WHAT);
        let totals = if k > INPUT_SEGMENT { n.saturating_mul(network.geometry.panel()) } else { 0 };
        Ok(Direction {
            numbers: Buffer::zeroed(layer.affine().start - layer.weights, WHAT)?,
            sums: Buffer::zeroed(network.geometry.padded(layer.outputs), WHAT)?,
            tall: panels(n, k)?,
            next: panels(n, k)?,
            gram: panels(k, k)?,
            polynomial: panels(k, k)?,
            totals: Buffer::zeroed(totals, WHAT)?,
        })
    }

    fn none(network: &Network<T>) -> Result<Self, Error> {
        let (empty, panels) = (|| Buffer::zeroed(0, WHAT), || Panels::zeroed(0, 0, network.geometry, WHAT));
        Ok(Direction {
            numbers: empty()?,
            sums: empty()?,
            tall: panels()?,
            next: panels()?,
            gram: panels()?,
            polynomial: panels()?,
            totals: empty()?,
        })
    }

    /// The direction of layer `l` from its gradient, times `factor`, and the momentum before this step, which stays: both are
    /// buffers in the form of all weights.
    pub fn compute(&mut self, network: &Network<T>, l: usize, muon: &Muon, gradient: &[T], momentum: &[T], factor: T) {
        let mut layer = network.layers[l];
        let here = layer.weights..layer.affine().start;
        layer.weights = 0;
        let blend = |x: &mut [T], keep: f64, y: &[T], share: f64| {
            network.kernels.blend(&mut Blend { x, keep: T::from_f64(keep), y, share: T::from_f64(share) });
        };
        let numbers = &mut self.numbers[..];
        numbers.copy_from_slice(&gradient[here.clone()]);
        network.kernels.blend(&mut Blend { x: numbers, keep: factor, y: &[], share: T::ZERO });
        let Muon { momentum: mu, nesterov, .. } = *muon;
        let (keep, share) = if nesterov { ((1.0 - mu) * (1.0 + mu), mu * mu) } else { (1.0 - mu, mu) };
        blend(numbers, keep, &momentum[here], share);
        muon.round(numbers);
        sums_of(network, Of::Squares, &layer, numbers, 0..layer.outputs, &mut self.sums);
        let squares = strided_total(self.sums[..layer.outputs].iter().map(|sum| sum.to_f64()));
        let mut norm = [T::from_f64(squares.sqrt())];
        muon.round(&mut norm);
        let norm = norm[0].to_f64();
        blend(numbers, 1.0 / if norm > muon.epsilon { norm } else { muon.epsilon }, &[], 0.0);
        muon.round(numbers);
        self.stand_up(network, &layer);
        let [a, b, c] = muon.coefficients;
        for _ in 0..muon.steps {
            self.gram(network);
            muon.round(self.gram.data_mut());
            multiply(network, self.gram.view(), &self.gram, &mut self.polynomial, &mut self.totals);
            blend(self.polynomial.data_mut(), c, self.gram.view().data(), b);
            muon.round(self.polynomial.data_mut());
            multiply(network, self.tall.view(), &self.polynomial, &mut self.next, &mut self.totals);
            blend(self.next.data_mut(), 1.0, self.tall.view().data(), a);
            muon.round(self.next.data_mut());
            std::mem::swap(&mut self.tall, &mut self.next);
        }
        self.lie_down(network, &layer);
    }

    /// `A = Y^T Y`
    fn gram(&mut self, network: &Network<T>) {
        let y = self.tall.view();
        let pairs = [Pair { a: y, b: y, opens: true, nonzeros: None, turned: false }];
        for lane_panel in 0..self.gram.panels() {
            network.kernels.gradient(&mut Gradient {
                pairs: &pairs,
                row_panels: 0..self.gram.panels(),
                lane_panels: lane_panel..lane_panel + 1,
                goes_on: false,
                bias: false,
                c: self.gram.panel_mut(lane_panel),
            });
        }
    }

    /// Y from the layer's form.
    fn stand_up(&mut self, network: &Network<T>, layer: &Layer) {
        if !is_turned(layer) {
            for p in 0..self.tall.panels() {
                let rows = layer.row(p, 0)..layer.row(p, 0) + layer.rows() * layer.width(p);
                self.tall.panel_mut(p).copy_from_slice(&self.numbers[rows]);
            }
            return;
        }
        // A wide layer's bias is a row of its own behind the weights.
        let rows = layer.rows() + usize::from(layer.form == Form::Wide);
        let source = PanelsRef::new(&self.numbers[layer.row(0, 0)..], rows, layer.lanes(), network.geometry);
        for q in 0..self.tall.panels() {
            let (width, lanes, row) = (self.tall.width(q), 0..source.lanes(), q * network.geometry.panel());
            network.kernels.turn(&mut Turn { source, lanes, row, target: self.tall.panel_mut(q), width });
        }
        self.tall.clear_padding();
    }

    /// The layer's form from Y.
    fn lie_down(&mut self, network: &Network<T>, layer: &Layer) {
        for p in 0..layer.panels() {
            let width = layer.width(p);
            let target = &mut self.numbers[layer.row(p, 0)..layer.row(p, 0) + layer.rows() * width];
            if is_turned(layer) {
                let (source, row) = (self.tall.view(), p * network.geometry.panel());
                network.kernels.turn(&mut Turn { source, lanes: 0..source.lanes(), row, target, width });
            } else {
                target.copy_from_slice(self.tall.panel(p));
            }
        }
    }
}

/// Whether the layer's form has the lesser size as rows, so that Y is its transpose. Of a square matrix all forms take W.
fn is_turned(layer: &Layer) -> bool {
    layer.rows() < layer.lanes() || (layer.rows() == layer.lanes() && layer.form == Form::Narrow)
}

/// `c = a b`, all in panels.
fn multiply<T: Number>(network: &Network<T>, a: PanelsRef<'_, T>, b: &Panels<T>, c: &mut Panels<T>, totals: &mut [T]) {
    let panel = network.geometry.panel();
    for p in 0..c.panels() {
        let width = c.width(p);
        for depth in blocks_of(a.lanes(), DEPTH_BLOCK) {
            let of_panel = totals.len().min(a.rows() * width);
            network.kernels.product(&mut Product {
                a,
                b: b.panel(p),
                b_stride: panel * width,
                depth,
                start: Start::Zero,
                finish: Finish::Apply(Activation::Identity),
                totals: &mut totals[..of_panel],
                c: c.panel_mut(p),
                width,
                lanes: width.min(b.lanes() - p * panel),
            });
        }
    }
}

impl Muon {
    /// To the nearest bfloat16 numbers, where that is wanted.
    fn round<T: Number>(&self, numbers: &mut [T]) {
        if self.rounds {
            numbers.iter_mut().for_each(|x| *x = bfloat16(*x));
        }
    }
}

/// The nearest bfloat16 number, ties to even; not a number stays so.
fn bfloat16<T: Number>(x: T) -> T {
    let single = x.to_f64() as f32;
    if !single.is_finite() {
        return T::from_f32(single);
    }
    let bits = single.to_bits();
    T::from_f32(f32::from_bits(bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::kernels::Loss;
    use crate::network::LayerSpec;

    #[test]
    fn products_of_several_segments_add_them_in_order() {
        let (rows, depth, lanes) = (3, 2 * INPUT_SEGMENT + 5, 5);
        let spec = LayerSpec::plain(1, Activation::Identity);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let network = Network::<f64>::new(1, &[spec], Loss::SquaredError, isa).unwrap();
            let filled = |rows, lanes, salt: usize| {
                let mut panels = Panels::zeroed(rows, lanes, network.geometry, "test").unwrap();
                let place = |r: usize, c: usize| ((r * 7919 + c * 104_729 + salt) % 2001) as f64 / 1000.0 - 1.0;
                (0..rows).for_each(|r| (0..lanes).for_each(|c| panels.set(r, c, place(r, c))));
                panels
            };
            let (a, b) = (filled(rows, depth, 1), filled(depth, lanes, 2));
            let mut c = filled(rows, lanes, 3);
            let mut totals = vec![7.0; rows * network.geometry.panel()];
            multiply(&network, a.view(), &b, &mut c, &mut totals);
            for (r, j) in (0..rows).flat_map(|r| (0..lanes).map(move |j| (r, j))) {
                let segment = |first: usize| {
                    let last = (first + INPUT_SEGMENT).min(depth);
                    (first..last).fold(0.0, |sum, k| f64::mul_add(a.get(r, k), b.get(k, j), sum))
                };
                let wanted = (0..depth).step_by(INPUT_SEGMENT).map(segment).reduce(|sum, next| sum + next);
                assert_eq!(Some(c.get(r, j)), wanted, "{isa:?}");
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_bfloat16_ties_to_even() {
        for (x, wanted) in
            [(1.0f64, 1.0f64), (1.00390625, 1.0), (1.01171875, 1.015625), (-1.005, -1.0078125), (0.0, 0.0)]
        {
            assert_eq!(bfloat16(x), wanted);
            assert_eq!(bfloat16(x as f32), wanted as f32);
        }
        assert_eq!(bfloat16(3.4e38f32), f32::INFINITY);
        assert!(bfloat16(f64::NAN).is_nan());
    }
}
