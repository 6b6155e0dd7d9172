//! Which numbers of a matrix in panels are not zero, in the two orders in which products skip the others.
//!
//! | product | reads | skips |
//! |---|---|---|
//! | forward (`sparse.rs`) | a row's lanes, block by block | what is 0 |
//! | weight gradient (`gradient.rs`) | the rows of a group of neighbouring lanes | rows in which the whole group is 0 |
//!
//! Pictures have black borders, tables one-hot columns, texts most of their words missing: what is multiplied by zero need not
//! be. A chain of fused multiply-adds that begins with anything but -0 has the same bits without its zero terms, as long as
//! its numbers are finite and no product is so small that it rounds to -0.
//!
//! Promise: the places in a block of lanes are below the block's length and ascend, so do the rows of a group below the number
//! of rows. Kernels read memory by them without looking again, so nobody but [`FindOp`] writes them.

use super::gemm::INPUT_SEGMENT;
use super::lanes::MOST_LANES;
use super::math::Math;
use crate::error::Error;
use crate::isa::{Operation, SET_BITS, Simd};
use crate::panel::{Buffer, Geometry, PanelsRef};
use std::ops::Range;

/// The least lanes of a block: a multiple of every panel's width.
pub const LEAST_BLOCK: usize = 64;
/// Bits of a mask that are looked up together.
const BYTE: usize = 8;

/// Lanes of a group: rows of the tile in which a weight gradient skips.
#[inline(always)]
pub const fn group_lanes(geometry: Geometry) -> usize {
    if geometry.lanes >= 2 { 4 } else { 2 }
}

/// Where a matrix is not zero.
pub struct Nonzeros<T> {
    geometry: Geometry,
    /// Rows that it has room for.
    capacity: usize,
    /// Numbers that it has room for.
    most: usize,
    /// Whether there were no more.
    is_whole: bool,
    rows: usize,
    lanes: usize,
    /// Lanes of a block.
    block: usize,
    /// Where the places of each block's rows begin, `[blocks][rows]`, and where the last one's end.
    starts: Buffer<u32>,
    /// Lanes, counted from their block's first.
    places: Buffer<u16>,
    /// What stands there.
    values: Buffer<T>,
    /// How many rows each group has.
    counts: Buffer<u32>,
    /// These rows: `[groups][rows]`.
    members: Buffer<u16>,
}

impl<T: Math> Nonzeros<T> {
    /// Room for matrices of at most so many rows, of whose numbers at most so many, less a block, are not zero.
    ///
    /// # Errors
    /// [`Error::Memory`] where it cannot be had, or where there would be more rows or places than its lists can tell.
    pub fn new(rows: usize, lanes: usize, most: usize, geometry: Geometry) -> Result<Self, Error> {
        let what = "batch: where its input is not zero";
        let numbers = rows.saturating_mul(lanes);
        if rows > usize::from(u16::MAX) || numbers > u32::MAX as usize {
            return Err(Error::Memory { what, bytes: numbers.saturating_mul(2 * size_of::<u16>()) });
        }
        let groups = geometry.padded(lanes).div_ceil(group_lanes(geometry));
        Ok(Nonzeros {
            geometry,
            capacity: rows,
            most,
            is_whole: false,
            rows,
            lanes,
            block: LEAST_BLOCK,
            starts: Buffer::zeroed(lanes.div_ceil(LEAST_BLOCK) * rows + 1, what)?,
            places: Buffer::zeroed(most.saturating_add(MOST_LANES), what)?,
            values: Buffer::zeroed(most.saturating_add(MOST_LANES), what)?,
            counts: Buffer::zeroed(groups, what)?,
            members: Buffer::zeroed(groups * rows, what)?,
        })
    }

    /// Whether all of a matrix was found.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether this speaks of a matrix of such a shape, and of all of it.
    pub fn fits(&self, a: PanelsRef<'_, T>) -> bool {
        self.is_whole && (self.geometry, self.rows, self.lanes) == (a.geometry(), a.rows(), a.lanes())
    }

    /// How many numbers are not zero.
    pub fn count(&self) -> usize {
        self.starts[self.blocks().len() * self.rows] as usize
    }

    /// How many rows the groups have together.
    pub fn members(&self) -> usize {
        self.counts.iter().map(|&count| count as usize).sum()
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.counts.len()
    }

    /// The blocks of lanes, in order.
    #[inline(always)]
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<T> {
        let (block, lanes) = (self.block, self.lanes);
        (0..lanes).step_by(block).map(move |first| first..(first + block).min(lanes))
    }

    /// Where row `row` of block `block` is not zero, counted from the block's first lane, and what stands there.
    #[inline(always)]
    pub fn row(&self, block: usize, row: usize) -> (&[u16], &[T]) {
        let at = block * self.rows + row;
        let here = self.starts[at] as usize..self.starts[at + 1] as usize;
        (&self.places[here.clone()], &self.values[here])
    }

    /// The rows in which group `group` of lanes is not all zero.
    #[inline(always)]
    pub fn group(&self, group: usize) -> &[u16] {
        &self.members[group * self.rows..][..self.counts[group] as usize]
    }
}

/// Finds where a matrix is not zero.
pub struct Find<'a, T> {
    /// The matrix; padding counts as zero. More numbers than there is room for are not all found.
    pub a: PanelsRef<'a, T>,
    /// Lanes of a block: a power of two from [`LEAST_BLOCK`] to [`INPUT_SEGMENT`].
    pub block: usize,
    /// Has room for it.
    pub into: &'a mut Nonzeros<T>,
}

/// [`Find`] as an operation for one instruction set.
pub struct FindOp<'p, 'a, T>(pub &'p mut Find<'a, T>);

impl<T: Math, S: Simd<T>> Operation<T, S> for FindOp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Find { a, block, into } = self.0;
        let (rows, lanes, panel, group) = (a.rows(), a.lanes(), 2 * S::LANES, group_lanes(a.geometry()));
        assert_eq!((a.geometry().lanes, into.geometry), (S::LANES, a.geometry()));
        assert!(block.is_power_of_two() && *block >= LEAST_BLOCK && *block <= INPUT_SEGMENT);
        assert!(lanes == into.lanes && rows <= into.capacity, "there is room");
        (into.rows, into.block, into.is_whole) = (rows, *block, false);
        into.counts.fill(0);
        let mut lists = Lists {
            starts: into.starts.as_mut_ptr(),
            places: into.places.as_mut_ptr(),
            values: into.values.as_mut_ptr(),
            counts: into.counts.as_mut_ptr(),
            members: into.members.as_mut_ptr(),
            n: 0,
        };
        let last = lanes - (a.geometry().panels(lanes) - 1) * panel;
        for block in into.blocks() {
            for row in 0..rows {
                if lists.n + block.len() > into.most {
                    return;
                }
                // SAFETY: `new` made room for every row's start in each block and one more; there is room for all of the row's
                // numbers in this block and what `pack` writes behind them; each group gets a row at most once, so its
                // list ends within its rows.
                unsafe {
                    *lists.starts = lists.n as u32;
                    lists.starts = lists.starts.add(1);
                    for q in block.start / panel..block.end.div_ceil(panel) {
                        let numbers = a.data().as_ptr().add(q * panel * rows);
                        let base = (q * panel - block.start) as u16;
                        let members = (q * (panel / group), rows);
                        if (q + 1) * panel <= lanes {
                            lists.add::<S, 2>(s, numbers.add(row * panel), (base, row), members, panel);
                        } else if last > S::LANES {
                            lists.add::<S, 2>(s, numbers.add(row * panel), (base, row), members, last);
                        } else {
                            lists.add::<S, 1>(s, numbers.add(row * S::LANES), (base, row), members, last);
                        }
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { *lists.starts = lists.n as u32 };
        into.is_whole = true;
    }
}

/// Where the next entries go.
struct Lists<T> {
    starts: *mut u32,
    places: *mut u16,
    values: *mut T,
    counts: *mut u32,
    members: *mut u16,
    /// Places and values so far.
    n: usize,
}

impl<T: Math> Lists<T> {
    /// A row's N vectors in one panel, of which `lanes` numbers are the matrix's. Nothing here branches by which of them are zero,
    /// but where all are: whole vectors are written, and what does not count is written over.
    #[inline(always)]
    unsafe fn add<S: Simd<T>, const N: usize>(
        &mut self,
        s: S,
        numbers: *const T,
        (base, row): (u16, usize),
        (first_group, rows): (usize, usize),
        lanes: usize,
    ) {
        let group = group_lanes(Geometry { lanes: S::LANES });
        let mut all = 0;
        // SAFETY: the caller vouches for N vectors, for room of as many entries, and for the groups' lists.
        unsafe {
            let mut vectors = [(s.splat(T::ZERO), 0); N];
            for (v, (vector, bits)) in vectors.iter_mut().enumerate() {
                *vector = s.load(numbers.add(v * S::LANES));
                let used = u32::MAX >> (u32::BITS as usize - (lanes - v * S::LANES).min(S::LANES));
                *bits = s.nonzero(*vector) & used;
                all |= *bits << (v * S::LANES);
            }
            if all == 0 {
                return;
            }
            let mut packed = self.values.add(self.n);
            for (vector, bits) in vectors {
                s.pack(packed, vector, bits);
                packed = packed.add(bits.count_ones() as usize);
            }
            for byte in 0..(N * S::LANES).div_ceil(BYTE) {
                let mut places = SET_BITS[(all >> (BYTE * byte)) as usize & 0xff];
                places.iter_mut().for_each(|place| *place += base + (BYTE * byte) as u16);
                self.places.add(self.n).cast::<[u16; BYTE]>().write_unaligned(places);
                self.n += (all >> (BYTE * byte) & 0xff).count_ones() as usize;
            }
            for g in 0..(N * S::LANES).div_ceil(group) {
                let count = self.counts.add(first_group + g);
                *self.members.add((first_group + g) * rows + *count as usize) = row as u16;
                *count += u32::from(all >> (g * group) & ((1 << group) - 1) != 0);
            }
        }
    }
}
