//! What a layer does to its pre-activations besides a plain activation, and the way back.
//!
//! [`Dress`] makes `A = dropout(f(Y)) + A[l-1]` of Y and keeps `f'(Y)` times the mask, which is all that backward reads;
//! [`Undress`] makes `dY` of `dA`. Both run over a panel right after its last tile, while it is in the cache.
//!
//! Dropout is inverted (Srivastava et al. 2014): what is kept is multiplied by `1 / (1 - p)`. Whether unit j of the batch's
//! sample i is kept is word `i mod 4` of Philox 4x32-10 (Salmon, Moraes, Dror and Shaw 2011) with the seed as key and counter
//! `[i / 4, j, layer and the step's high bits, step]`: it depends on neither slices, panels nor threads.

use super::activate::value_and_slope;
use super::epilogue::{Finish, times};
use super::math::Math;
use crate::activation::Activation;
use crate::isa::{Operation, Simd};

/// The most lanes of a panel.
const WIDEST: usize = 32;

/// Which units of which samples are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// The generator's key.
    pub key: [u32; 2],
    /// The last two words of its counter.
    pub counter: [u32; 2],
    /// A unit is dropped where its number is below this.
    pub threshold: u32,
    /// What is kept is multiplied by this.
    pub scale: f64,
    /// The batch's row that the panel's first row is.
    pub first_row: usize,
    /// The unit that the panel's first lane is.
    pub first_unit: usize,
}

/// One panel `[rows][width]` of a layer, dressed.
pub struct Dress<'a, T> {
    /// The function.
    pub activation: Activation,
    /// Dropout, in training.
    pub mask: Option<Mask>,
    /// Y in, A out.
    pub units: &'a mut [T],
    /// `A[l-1]`, or empty.
    pub onto: &'a [T],
    /// Out: what `dA` is multiplied by to give `dY`; empty where nobody will ask.
    pub slopes: &'a mut [T],
    /// Lanes with padding.
    pub width: usize,
    /// Lanes without.
    pub lanes: usize,
}

/// [`Dress`] as an operation for one instruction set.
pub struct DressOp<'p, 'a, T>(pub &'p mut Dress<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for DressOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let d = self.0;
        assert!(d.width.is_multiple_of(S::LANES) && d.width <= WIDEST && d.lanes <= d.width);
        assert!(d.units.len().is_multiple_of(d.width));
        assert!(d.onto.is_empty() || d.onto.len() == d.units.len());
        assert!(d.slopes.is_empty() || d.slopes.len() == d.units.len());
        macro_rules! each {
            ($($activation:pat => $f:expr),+ $(,)?) => {
                match d.activation {
                    $($activation => apply(
                        s,
                        d,
                        #[inline(always)]
                        |y| value_and_slope(s, $f, y),
                    ),)+
                }
            };
        }
        use Activation as A;
        each!(
            A::Identity | A::Softmax => A::Identity,
            A::Relu => A::Relu,
            A::LeakyRelu { slope } => A::LeakyRelu { slope },
            A::Tanh => A::Tanh,
            A::Sigmoid => A::Sigmoid,
            A::Exponential => A::Exponential,
            A::Elu { alpha, scale } => A::Elu { alpha, scale },
            A::Gelu => A::Gelu,
            A::GeluTanh => A::GeluTanh,
            A::Silu => A::Silu,
            A::Mish => A::Mish,
            A::Softplus => A::Softplus,
            A::Softsign => A::Softsign,
            A::HardTanh => A::HardTanh,
            A::HardSigmoid => A::HardSigmoid,
            A::HardSwish => A::HardSwish,
            A::Relu6 => A::Relu6,
        );
        if let Some(mask) = d.mask {
            drop_out(s, d, mask);
        }
        if d.activation.stains_padding() && d.lanes < d.width {
            d.units.chunks_exact_mut(d.width).for_each(|row| row[d.lanes..].fill(T::ZERO));
        }
    }
}

/// The function, decided outside of the loop, and what is added to its result unless dropout comes in between.
#[inline(always)]
fn apply<T: Math, S: Simd<T>>(s: S, d: &mut Dress<'_, T>, f: impl Fn(S::V) -> (S::V, S::V)) {
    let adds = d.mask.is_none() && !d.onto.is_empty();
    for at in (0..d.units.len()).step_by(S::LANES) {
        // SAFETY: `run` checked that the slices hold whole vectors, as many each, or are empty.
        unsafe {
            let (mut value, slope) = f(s.load(d.units.as_ptr().add(at)));
            if adds {
                value = s.add(value, s.load(d.onto.as_ptr().add(at)));
            }
            s.store(d.units.as_mut_ptr().add(at), value);
            if !d.slopes.is_empty() {
                s.store(d.slopes.as_mut_ptr().add(at), slope);
            }
        }
    }
}

/// Dropout, and what is added behind it. A loop of its own: in those of all functions the drawing of numbers would be compiled
/// once for each, and it takes longer than reading the panel again.
#[inline(always)]
fn drop_out<T: Math, S: Simd<T>>(s: S, d: &mut Dress<'_, T>, mask: Mask) {
    let mut kept = [[T::ONE; WIDEST]; 4];
    for (row, begin) in (0..d.units.len()).step_by(d.width).enumerate() {
        let at_row = (mask.first_row + row) % 4;
        if row == 0 || at_row == 0 {
            draw(mask, (mask.first_row + row) / 4, d.width, &mut kept);
        }
        for lane in (0..d.width).step_by(S::LANES) {
            let at = begin + lane;
            // SAFETY: `run` checked that the slices hold whole rows of `width` numbers, a multiple of LANES, or are empty, and that
            // `kept` has rows as wide.
            unsafe {
                let kept = s.load(kept[at_row].as_ptr().add(lane));
                let mut value = s.mul(s.load(d.units.as_ptr().add(at)), kept);
                if !d.onto.is_empty() {
                    value = s.add(value, s.load(d.onto.as_ptr().add(at)));
                }
                s.store(d.units.as_mut_ptr().add(at), value);
                if !d.slopes.is_empty() {
                    let slope = s.mul(s.load(d.slopes.as_ptr().add(at)), kept);
                    s.store(d.slopes.as_mut_ptr().add(at), slope);
                }
            }
        }
    }
}

/// Lanes whose numbers are drawn side by side.
const AT_ONCE: usize = 8;

/// What four neighbouring samples' units are multiplied by: 0 or the mask's scale. Lanes beyond a narrow panel get anything.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn draw<T: Math>(mask: Mask, rows: usize, width: usize, kept: &mut [[T; WIDEST]; 4]) {
    let (keys, scale, [third, fourth]) = (round_keys(mask.key), T::from_f64(mask.scale), mask.counter);
    for begin in (0..width).step_by(AT_ONCE) {
        let mut words = [[0; AT_ONCE]; 4];
        // Of a constant length: the compiler turns the loop into vectors that stay in registers for all rounds.
        for lane in 0..AT_ONCE {
            let drawn = philox([rows as u32, (mask.first_unit + begin + lane) as u32, third, fourth], &keys);
            (words[0][lane], words[1][lane], words[2][lane], words[3][lane]) = (drawn[0], drawn[1], drawn[2], drawn[3]);
        }
        for (kept, words) in kept.iter_mut().zip(&words) {
            for lane in 0..AT_ONCE {
                kept[begin + lane] = if words[lane] < mask.threshold { T::ZERO } else { scale };
            }
        }
    }
}

/// Philox' key in each of its ten rounds.
#[inline(always)]
fn round_keys(mut key: [u32; 2]) -> [[u64; 2]; 10] {
    let mut keys = [[0; 2]; 10];
    for of_round in &mut keys {
        *of_round = [u64::from(key[0]), u64::from(key[1])];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    keys
}

/// The ten rounds of Philox 4x32. In 64 bits, of which the upper half is anything between the rounds: so all of it is the same few
/// instructions on vectors, without a word changing its place.
#[inline(always)]
fn philox(counter: [u32; 4], keys: &[[u64; 2]; 10]) -> [u32; 4] {
    const LOW: u64 = u32::MAX as u64;
    let [mut c0, mut c1, mut c2, mut c3] = counter.map(u64::from);
    for [first_key, second_key] in keys {
        let first = (c0 & LOW) * 0xd251_1f53;
        let second = (c2 & LOW) * 0xcd9e_8d57;
        (c0, c2) = ((second >> 32) ^ c1 ^ first_key, (first >> 32) ^ c3 ^ second_key);
        (c1, c3) = (second, first);
    }
    [c0 as u32, c1 as u32, c2 as u32, c3 as u32]
}

/// One panel of a layer's `dA`, on its way to `dY`.
pub struct Undress<'a, T> {
    /// `dA` without what went past the layer above's weights in; `dY` out.
    pub deltas: &'a mut [T],
    /// `dA` of the layer above in, where that one adds its input to its result; `dA` of this layer out, where this one does.
    pub stream: &'a mut [T],
    /// Whether the layer above adds its input.
    pub adds: bool,
    /// Whether this layer does.
    pub keeps: bool,
    /// What `dA` is multiplied by.
    pub by: Finish<'a, T>,
}

/// [`Undress`] as an operation for one instruction set.
pub struct UndressOp<'p, 'a, T>(pub &'p mut Undress<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for UndressOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let u = self.0;
        assert!(u.deltas.len().is_multiple_of(S::LANES));
        assert!(!(u.adds || u.keeps) || u.stream.len() == u.deltas.len());
        for at in (0..u.deltas.len()).step_by(S::LANES) {
            // SAFETY: `run` checked that both slices hold whole vectors, and the stream as many where it is touched.
            unsafe {
                let mut x = s.load(u.deltas.as_ptr().add(at));
                if u.adds {
                    x = s.add(x, s.load(u.stream.as_ptr().add(at)));
                }
                if u.keeps {
                    s.store(u.stream.as_mut_ptr().add(at), x);
                }
                s.store(u.deltas.as_mut_ptr().add(at), x);
            }
        }
        times(s, u.by, u.deltas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_numbers_that_its_authors_publish() {
        // Random123's known answers for philox4x32-10.
        let run = |words, key| philox(words, &round_keys(key));
        assert_eq!(run([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(run([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(run(counter, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
