//! Sums of losses: the same bits whatever order slices arrive in and however their terms are cut.

use crate::kernels::Number;

/// A sum over a logical index in 32 strided partials and a tree: the same bits whoever computes the terms.
pub struct StridedSum {
    partial: [f64; 32],
    next: usize,
}

impl StridedSum {
    /// An empty sum.
    pub fn new() -> Self {
        StridedSum { partial: [0.0; 32], next: 0 }
    }
    /// The next term.
    pub fn add(&mut self, term: f64) {
        self.partial[self.next % 32] += term;
        self.next += 1;
    }
    /// The next terms.
    pub fn extend<T: Number>(&mut self, terms: &[T]) {
        let (ahead, rest) = terms.split_at(((32 - self.next % 32) % 32).min(terms.len()));
        ahead.iter().for_each(|&term| self.add(term.to_f64()));
        for terms in rest.chunks(32) {
            self.partial.iter_mut().zip(terms).for_each(|(partial, &term)| *partial += term.to_f64());
        }
        self.next += rest.len();
    }
    /// The sum of all.
    pub fn total(&self) -> f64 {
        let mut partial = self.partial;
        for half in [16, 8, 4, 2, 1] {
            (0..half).for_each(|i| partial[i] += partial[i + half]);
        }
        partial[0]
    }
}

impl Default for StridedSum {
    fn default() -> Self {
        StridedSum::new()
    }
}

/// The mean of the rows' losses, weighted where there are weights; 0 where these are all 0.
pub fn weighted_mean(losses: &[f64], weights: Option<&[f64]>) -> f64 {
    let (mut sum, mut whole) = (StridedSum::new(), StridedSum::new());
    for (row, &loss) in losses.iter().enumerate() {
        let weight = weights.map_or(1.0, |weights| weights[row]);
        sum.add(weight * loss);
        whole.add(weight);
    }
    if whole.total() > 0.0 { sum.total() / whole.total() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_sum_is_the_same_however_its_terms_arrive() {
        let terms: Vec<f32> = (0..200).map(|i| 1.0 / (i as f32 + 0.3)).collect();
        let mut one_by_one = StridedSum::new();
        terms.iter().for_each(|&term| one_by_one.add(term.into()));
        for cut in [0, 1, 31, 32, 33, 64, 199, 200] {
            let mut sum = StridedSum::new();
            sum.extend(&terms[..cut]);
            sum.extend(&terms[cut..]);
            assert_eq!(sum.total(), one_by_one.total(), "{cut}");
        }
    }
}
