//! Random numbers from a counter: the same seed and purpose give the same numbers, whoever asks, in any order.
//!
//! Philox 4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as in
//! `numpy.random.Philox`, which is the outside oracle: key `[seed, purpose]`, counter `[0, index, 0, 0]`, incremented
//! before each block of four.

/// What the numbers are for: a word of the key, so that purposes never share a stream.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// The order of the samples in an epoch.
    Shuffle = 1,
}

/// A stream of 64-bit numbers.
pub struct Philox {
    key: [u64; 2],
    counter: [u64; 4],
    block: [u64; 4],
    used: usize,
}

impl Philox {
    /// The stream of one purpose and index (an epoch, say).
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        Philox { key: [seed, purpose as u64], counter: [0, index, 0, 0], block: [0; 4], used: 4 }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == 4 {
            // The first word alone counts 2^64 blocks.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.block = rounds(self.counter, self.key);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// A number below `bound` (multiply and shift; for bounds below 2^32 the bias is under 2^-32).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }
}

/// The ten rounds.
fn rounds(mut counter: [u64; 4], mut key: [u64; 2]) -> [u64; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9e37_79b9_7f4a_7c15);
            key[1] = key[1].wrapping_add(0xbb67_ae85_84ca_a73b);
        }
        let product = |word: u64, by: u64| word as u128 * by as u128;
        let (first, second) = (product(counter[0], 0xd2e7_470e_e14c_6c93), product(counter[2], 0xca5a_8263_9512_1157));
        counter = [
            (second >> 64) as u64 ^ counter[1] ^ key[0],
            second as u64,
            (first >> 64) as u64 ^ counter[3] ^ key[1],
            first as u64,
        ];
    }
    counter
}

/// Fills `order` with a permutation of `0..order.len()` (Fisher and Yates, from the back).
pub fn shuffle(order: &mut [u32], seed: u64, epoch: u64) {
    let mut stream = Philox::new(seed, Purpose::Shuffle, epoch);
    (0..).zip(order.iter_mut()).for_each(|(i, slot)| *slot = i);
    for i in (1..order.len()).rev() {
        order.swap(i, stream.below(i as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_is_numpys() {
        // numpy.random.Philox(key=[7, 1], counter=[0, 3, 0, 0]).random_raw(6)
        let mut stream = Philox::new(7, Purpose::Shuffle, 3);
        let ours: Vec<u64> = (0..6).map(|_| stream.next_u64()).collect();
        assert_eq!(ours, NUMPY);
    }

    const NUMPY: [u64; 6] = [
        6278973547175908485,
        2051923347180383145,
        4775395916500224090,
        17079265019696325181,
        5805093322243885404,
        17601979785280995445,
    ];

    #[test]
    fn a_shuffle_is_a_permutation_and_differs_by_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = vec![0; 1000];
            shuffle(&mut order, seed, epoch);
            order
        };
        let mut sorted = order(1, 0);
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }
}
