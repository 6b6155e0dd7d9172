//! The packed layouts: aligned buffers, panels, and data that changes hands between phases.
//!
//! A matrix of `rows x lanes` is stored as panels `[ceil(lanes / P)][rows][P]`: a panel holds all rows of
//! `P = 2V` neighbouring lanes; the last one is narrowed to a multiple of `V`. For activations rows are samples
//! and lanes are units; for weights in forward form rows are inputs and lanes are outputs. Padding lanes are zero,
//! and whoever writes a vector writes its padding.
//!
//! [`Parts`] and [`Arena`] hand out disjoint pieces to threads in one phase and the whole to readers in the
//! next; a [`Loan`] does so with the panels of one matrix. Like a `RefCell` they check at run time (a few atomic operations a
//! claim) and panic on misuse, so everything above this file is safe code.

use crate::error::Error;
use crate::memory;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// From here on buffers start on a 2 MiB boundary, so that the kernel can back them with huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// A zeroed array of numbers on a cache-line boundary.
pub struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: a Buffer owns its memory as a Vec does.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Copy + Default> Buffer<T> {
    /// `len` zeros. (`T` is a number: its zero is all bits zero.)
    ///
    /// # Errors
    /// [`Error::Memory`], which names `what`, where the memory cannot be had.
    pub fn zeroed(len: usize, what: &'static str) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Buffer { start: NonNull::dangling(), len });
        }
        let refused = || Error::Memory { what, bytes: len.saturating_mul(size_of::<T>()) };
        let layout = Self::layout(len).ok_or_else(refused)?;
        if !memory::suffices(layout.size()) {
            return Err(refused());
        }
        let start = if layout.align() == HUGE_PAGE {
            // SAFETY: the layout has a size above zero.
            let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(refused)?;
            advise_huge_pages(start, layout.size());
            // SAFETY: that much was allocated at `start`, and nobody else has it.
            unsafe { start.as_ptr().write_bytes(0, layout.size()) };
            start.cast::<T>()
        } else {
            // SAFETY: the layout has a size above zero.
            NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<T>()).ok_or_else(refused)?
        };
        Ok(Buffer { start, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        Layout::from_size_align(bytes, alignment).ok()
    }
}

/// Asks the system to back these bytes by its largest pages, so that long walks through them do not wait for
/// address translation. Where it does not know them, nothing happens.
fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: this advice never changes what memory holds, and the system refuses it for an address that is not a page's.
    unsafe {
        libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            let bytes = self.len * size_of::<T>();
            let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
            let Ok(layout) = Layout::from_size_align(bytes, alignment) else { handle_alloc_error(Layout::new::<T>()) };
            // SAFETY: `zeroed` allocated it with this very layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` numbers, initialised (zeroed) at allocation, owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `&mut self` excludes every other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// How wide panels are with one instruction set: `P = 2V`. V is a power of two, so nothing here divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Lanes of one vector (`V`).
    pub lanes: usize,
}

impl Geometry {
    /// The width of a full panel (`P`).
    #[inline(always)]
    pub fn panel(self) -> usize {
        2 * self.lanes
    }
    /// How many panels `n` lanes take.
    #[inline(always)]
    pub fn panels(self, n: usize) -> usize {
        n.saturating_add(self.panel() - 1) >> self.panel().trailing_zeros()
    }
    /// The panel that lane `n` stands in.
    #[inline(always)]
    pub fn index(self, n: usize) -> usize {
        n >> self.panel().trailing_zeros()
    }
    /// The width of panel `p` of `n` lanes: `P`, or for the last one what is left, up to a multiple of `V`.
    #[inline(always)]
    pub fn width(self, n: usize, p: usize) -> usize {
        self.padded(n - p * self.panel()).min(self.panel())
    }
    /// `n` up to a multiple of `V`: the lanes of all panels together.
    #[inline(always)]
    pub fn padded(self, n: usize) -> usize {
        n.saturating_add(self.lanes - 1) & !(self.lanes - 1)
    }
}

/// A borrowed matrix in panels.
#[derive(Clone, Copy)]
pub struct PanelsRef<'a, T> {
    data: &'a [T],
    rows: usize,
    lanes: usize,
    geometry: Geometry,
}

impl<'a, T> PanelsRef<'a, T> {
    /// Reads `data` as `rows x lanes` in panels.
    ///
    /// # Panics
    /// Where `data` has another length.
    pub fn new(data: &'a [T], rows: usize, lanes: usize, geometry: Geometry) -> Self {
        assert_eq!(rows.checked_mul(geometry.padded(lanes)), Some(data.len()), "a matrix in panels fills its buffer");
        PanelsRef { data, rows, lanes, geometry }
    }
    /// All panels, one after the other.
    pub fn data(self) -> &'a [T] {
        self.data
    }
    /// Rows of the matrix.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Lanes of the matrix, without padding.
    #[inline(always)]
    pub fn lanes(&self) -> usize {
        self.lanes
    }
    /// The panels' width.
    #[inline(always)]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
    /// Panel `p`: `[rows][width(p)]`.
    pub fn panel(self, p: usize) -> &'a [T] {
        &self.data[panel_range(self.geometry, self.rows, self.lanes, p)]
    }
}

/// A matrix in panels that is being written.
pub struct PanelsMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    lanes: usize,
    geometry: Geometry,
}

impl<'a, T> PanelsMut<'a, T> {
    /// Writes `data` as `rows x lanes` in panels.
    ///
    /// # Panics
    /// Where `data` has another length.
    pub fn new(data: &'a mut [T], rows: usize, lanes: usize, geometry: Geometry) -> Self {
        assert_eq!(rows.checked_mul(geometry.padded(lanes)), Some(data.len()), "a matrix in panels fills its buffer");
        PanelsMut { data, rows, lanes, geometry }
    }
    /// All panels, one after the other, for as long as they may be written.
    pub fn into_data(self) -> &'a mut [T] {
        self.data
    }
    /// The same, to be read for a while.
    pub fn view(&self) -> PanelsRef<'_, T> {
        PanelsRef { data: self.data, rows: self.rows, lanes: self.lanes, geometry: self.geometry }
    }
    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Lanes of the matrix, without padding.
    pub fn lanes(&self) -> usize {
        self.lanes
    }
    /// How many panels it has.
    pub fn panels(&self) -> usize {
        self.geometry.panels(self.lanes)
    }
    /// The panels' width.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
    /// Lanes of panel `p` with padding.
    pub fn width(&self, p: usize) -> usize {
        self.geometry.width(self.lanes, p)
    }
    /// All panels, one after the other.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }
    /// Panel `p`: `[rows][width(p)]`.
    pub fn panel_mut(&mut self, p: usize) -> &mut [T] {
        &mut self.data[panel_range(self.geometry, self.rows, self.lanes, p)]
    }
}

#[inline]
fn panel_range(geometry: Geometry, rows: usize, lanes: usize, p: usize) -> Range<usize> {
    let start = p * geometry.panel() * rows;
    start..start + rows * geometry.width(lanes, p)
}

/// An owned matrix in panels, whose number of rows may change up to its capacity.
pub struct Panels<T> {
    buffer: Buffer<T>,
    rows: usize,
    lanes: usize,
    geometry: Geometry,
    /// Whether padding may hold numbers of another shape.
    stained: bool,
}

impl<T: Copy + Default> Panels<T> {
    /// Zeros, `rows x lanes`.
    ///
    /// # Errors
    /// [`Error::Memory`] where the memory cannot be had.
    pub fn zeroed(rows: usize, lanes: usize, geometry: Geometry, what: &'static str) -> Result<Self, Error> {
        let len = rows.saturating_mul(geometry.padded(lanes));
        Ok(Panels { buffer: Buffer::zeroed(len, what)?, rows, lanes, geometry, stained: false })
    }
    /// No matrix: what stands in another's place while that is lent.
    fn none(geometry: Geometry) -> Self {
        let buffer = Buffer { start: NonNull::dangling(), len: 0 };
        Panels { buffer, rows: 0, lanes: 0, geometry, stained: false }
    }
    /// Takes the matrix out of its place, which is empty from now on.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Panels::none(self.geometry))
    }
    /// From now on this is `rows x lanes`; what stood in it is meaningless until it is written.
    ///
    /// # Panics
    /// Where the matrix was not made that large.
    pub fn reshape(&mut self, rows: usize, lanes: usize) {
        let numbers = rows.checked_mul(self.geometry.padded(lanes));
        assert!(numbers.is_some_and(|numbers| numbers <= self.buffer.len()), "a matrix keeps its capacity");
        self.stained |= (self.rows, self.lanes) != (rows, lanes);
        (self.rows, self.lanes) = (rows, lanes);
    }
    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Lanes of the matrix, without padding.
    pub fn lanes(&self) -> usize {
        self.lanes
    }
    /// How many panels it has.
    pub fn panels(&self) -> usize {
        self.geometry.panels(self.lanes)
    }
    /// The panels' width.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
    /// Lanes of panel `p` with padding.
    pub fn width(&self, p: usize) -> usize {
        self.geometry.width(self.lanes, p)
    }
    /// A shared view.
    pub fn view(&self) -> PanelsRef<'_, T> {
        let len = self.rows * self.geometry.padded(self.lanes);
        PanelsRef::new(&self.buffer[..len], self.rows, self.lanes, self.geometry)
    }
    /// A view to write.
    pub fn view_mut(&mut self) -> PanelsMut<'_, T> {
        let len = self.rows * self.geometry.padded(self.lanes);
        PanelsMut::new(&mut self.buffer[..len], self.rows, self.lanes, self.geometry)
    }
    /// All panels, one after the other.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.view_mut().into_data()
    }
    /// Panel `p`: `[rows][width(p)]`.
    pub fn panel(&self, p: usize) -> &[T] {
        &self.buffer[panel_range(self.geometry, self.rows, self.lanes, p)]
    }
    /// Panel `p`: `[rows][width(p)]`.
    pub fn panel_mut(&mut self, p: usize) -> &mut [T] {
        &mut self.buffer[panel_range(self.geometry, self.rows, self.lanes, p)]
    }
    /// Where element (`row`, `lane`) stands in the buffer.
    #[cfg(test)]
    fn index(&self, row: usize, lane: usize) -> usize {
        let p = lane / self.geometry.panel();
        p * self.geometry.panel() * self.rows + row * self.width(p) + lane % self.geometry.panel()
    }
    /// Element (`row`, `lane`).
    #[cfg(test)]
    pub fn get(&self, row: usize, lane: usize) -> T {
        self.buffer[self.index(row, lane)]
    }
    /// Sets element (`row`, `lane`).
    #[cfg(test)]
    pub fn set(&mut self, row: usize, lane: usize, value: T) {
        let at = self.index(row, lane);
        self.buffer[at] = value;
    }
    /// Zeroes the padding lanes if the shape changed: for writers that leave them alone.
    pub fn renew_padding(&mut self) {
        if self.stained {
            self.clear_padding();
            self.stained = false;
        }
    }
    /// Zeroes the padding lanes: for writers whose f(0) is not 0.
    pub fn clear_padding(&mut self) {
        let last = self.panels() - 1;
        let (width, used) = (self.width(last), self.lanes - last * self.geometry.panel());
        if used < width {
            self.panel_mut(last).chunks_exact_mut(width).for_each(|row| row[used..].fill(T::default()));
        }
    }
}

/// Who has what: the run-time check behind [`Parts`] and [`Arena`].
#[repr(align(128))]
struct Gate {
    /// Readers, or minus the number of parts being written. On a cache line of its own.
    state: AtomicIsize,
    taken: Box<[AtomicBool]>,
}

impl Gate {
    fn new(parts: usize) -> Self {
        Gate { state: AtomicIsize::new(0), taken: (0..parts).map(|_| AtomicBool::new(false)).collect() }
    }
    #[inline]
    fn enter(&self, step: isize, refused: impl Fn(isize) -> bool) {
        let entered = self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
            if refused(state) { None } else { Some(state + step) }
        });
        assert!(entered.is_ok(), "parts are read and written in different phases");
    }
    #[inline]
    fn read(&self) {
        self.enter(1, |state| state < 0);
    }
    #[inline]
    fn write(&self, part: usize) {
        self.enter(-1, |state| state > 0);
        if self.taken[part].swap(true, Ordering::Acquire) {
            self.state.fetch_add(1, Ordering::Release);
            panic!("a part has one writer");
        }
    }
    #[inline]
    fn end_read(&self) {
        self.state.fetch_sub(1, Ordering::Release);
    }
    #[inline]
    fn end_write(&self, part: usize) {
        self.taken[part].store(false, Ordering::Release);
        self.state.fetch_add(1, Ordering::Release);
    }
}

/// Items that threads write one by one in a phase and read together in another.
pub struct Parts<P> {
    items: Box<[UnsafeCell<P>]>,
    gate: Gate,
}

// SAFETY: the gate lets either readers of the whole or one writer an item in, never both.
unsafe impl<P: Send + Sync> Sync for Parts<P> {}

impl<P> Parts<P> {
    /// Takes the items over.
    pub fn new(items: Vec<P>) -> Self {
        Parts { gate: Gate::new(items.len()), items: items.into_iter().map(UnsafeCell::new).collect() }
    }
    /// Hands them back.
    pub fn into_items(self) -> Vec<P> {
        self.items.into_iter().map(UnsafeCell::into_inner).collect()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// All items, to read.
    ///
    /// # Panics
    /// While one is being written.
    pub fn read(&self) -> Reading<'_, P> {
        self.gate.read();
        Reading { parts: self }
    }
    /// Item `part`, to write.
    ///
    /// # Panics
    /// While the items are being read, or this one is being written.
    pub fn write(&self, part: usize) -> Writing<'_, P> {
        assert!(part < self.items.len(), "part {part} of {}", self.items.len());
        self.gate.write(part);
        Writing { parts: self, part }
    }
}

/// All items of [`Parts`], until dropped.
pub struct Reading<'a, P> {
    parts: &'a Parts<P>,
}

impl<P> Reading<'_, P> {
    /// Item `part`.
    pub fn get(&self, part: usize) -> &P {
        // SAFETY: the gate counts this reader, so no item is being written.
        unsafe { &*self.parts.items[part].get() }
    }
}

impl<P> Drop for Reading<'_, P> {
    fn drop(&mut self) {
        self.parts.gate.end_read();
    }
}

/// One item of [`Parts`], until dropped.
pub struct Writing<'a, P> {
    parts: &'a Parts<P>,
    part: usize,
}

impl<P> Deref for Writing<'_, P> {
    type Target = P;
    fn deref(&self) -> &P {
        // SAFETY: the gate lets one writer to this item and no reader.
        unsafe { &*self.parts.items[self.part].get() }
    }
}

impl<P> DerefMut for Writing<'_, P> {
    fn deref_mut(&mut self) -> &mut P {
        // SAFETY: the gate lets one writer to this item and no reader.
        unsafe { &mut *self.parts.items[self.part].get() }
    }
}

impl<P> Drop for Writing<'_, P> {
    fn drop(&mut self) {
        self.parts.gate.end_write(self.part);
    }
}

/// A matrix lent to threads that write its panels, each panel one thread, until it is taken back.
pub struct Loan<T> {
    lent: RwLock<Option<Panels<T>>>,
    taken: Box<[AtomicBool]>,
}

impl<T: Copy + Default> Loan<T> {
    /// For matrices of at most so many panels; nothing is lent yet.
    pub fn new(panels: usize) -> Self {
        Loan { lent: RwLock::new(None), taken: (0..panels).map(|_| AtomicBool::new(false)).collect() }
    }
    /// Lends a matrix.
    ///
    /// # Panics
    /// Where another is lent, or the matrix has more panels than were announced.
    pub fn lend(&self, matrix: Panels<T>) {
        assert!(matrix.panels() <= self.taken.len(), "{} panels of {}", matrix.panels(), self.taken.len());
        let earlier = self.lent.write().unwrap_or_else(PoisonError::into_inner).replace(matrix);
        assert!(earlier.is_none(), "one matrix is lent at a time");
    }
    /// Takes the matrix back.
    ///
    /// # Panics
    /// Where none is lent.
    pub fn take_back(&self) -> Panels<T> {
        let lent = self.lent.write().unwrap_or_else(PoisonError::into_inner).take();
        lent.expect("a matrix is lent")
    }
    /// Panel `p`, to write: `[rows][width(p)]`.
    ///
    /// # Panics
    /// Where no matrix is lent, it has no such panel, or the panel is being written.
    pub fn write(&self, p: usize) -> PanelWriting<'_, T> {
        let lent = self.lent.read().unwrap_or_else(PoisonError::into_inner);
        let panels = lent.as_ref().map_or(0, Panels::panels);
        assert!(p < panels, "panel {p} of {panels} lent");
        assert!(!self.taken[p].swap(true, Ordering::Acquire), "a panel has one writer");
        PanelWriting { lent, taken: &self.taken[p], p }
    }
}

/// One panel of a [`Loan`], until dropped.
pub struct PanelWriting<'a, T> {
    lent: RwLockReadGuard<'a, Option<Panels<T>>>,
    taken: &'a AtomicBool,
    p: usize,
}

impl<T: Copy + Default> PanelWriting<'_, T> {
    /// The panel's numbers.
    pub fn numbers(&mut self) -> &mut [T] {
        let matrix = self.lent.as_ref().expect("a matrix stays lent while a panel is written");
        let range = panel_range(matrix.geometry, matrix.rows, matrix.lanes, self.p);
        assert!(range.end <= matrix.buffer.len);
        // SAFETY: the range lies in the buffer, whose pointer comes from its allocation; `taken` lets one writer to this panel,
        // the read guard keeps the matrix from being taken back, nobody else reaches a lent matrix's numbers, and `&mut self`
        // binds the slice to this one call.
        unsafe { std::slice::from_raw_parts_mut(matrix.buffer.start.as_ptr().add(range.start), range.len()) }
    }
}

impl<T> Drop for PanelWriting<'_, T> {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// Several buffers cut along the same part boundaries: part `i` owns one range of each.
///
/// This is where a model's numbers live: weights, their mirror, optimizer state, gradient. Each is one
/// buffer (a snapshot is one copy), and a thread that holds part `i` holds that range of all of them.
pub struct Arena<T> {
    buffers: Vec<Buffer<T>>,
    /// Of buffer `b`, part `i` owns `ranges[b][i]`.
    ranges: Vec<Vec<Range<usize>>>,
    gate: Gate,
}

// SAFETY: the gate lets either readers of the whole or one writer a part in; `ranges` are disjoint (checked by `new`).
unsafe impl<T: Send + Sync> Sync for Arena<T> {}

impl<T: Copy + Default> Arena<T> {
    /// Zeroed buffers cut into `ranges[buffer][part]`. A buffer may have length zero and so empty ranges.
    ///
    /// # Errors
    /// [`Error::Memory`] where the memory cannot be had.
    ///
    /// # Panics
    /// Where the ranges of one buffer are not ascending and disjoint, or their number differs between buffers.
    pub fn zeroed(ranges: Vec<Vec<Range<usize>>>, what: &'static str) -> Result<Self, Error> {
        let parts = ranges[0].len();
        let mut buffers = Vec::with_capacity(ranges.len());
        for of_buffer in &ranges {
            assert_eq!(of_buffer.len(), parts, "every buffer has the same parts");
            let end = of_buffer.iter().fold(0, |end, range| {
                assert!(end <= range.start && range.start <= range.end, "parts ascend and are disjoint");
                range.end
            });
            buffers.push(Buffer::zeroed(end, what)?);
        }
        Ok(Arena { buffers, ranges, gate: Gate::new(parts) })
    }
    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.ranges[0].len()
    }
    /// One whole buffer.
    pub fn buffer(&mut self, index: usize) -> &mut [T] {
        &mut self.buffers[index]
    }
    /// Replaces an empty buffer by zeros with the same cuts as buffer `like`; where it is not empty, zeroes it.
    ///
    /// # Errors
    /// [`Error::Memory`] where the memory cannot be had.
    pub fn materialise(&mut self, index: usize, like: usize, what: &'static str) -> Result<(), Error> {
        if self.buffers[index].is_empty() {
            self.buffers[index] = Buffer::zeroed(self.buffers[like].len(), what)?;
            self.ranges[index] = self.ranges[like].clone();
        } else {
            self.buffers[index].fill(T::default());
        }
        Ok(())
    }
    /// Gives a buffer's memory back.
    pub fn release(&mut self, index: usize) {
        self.buffers[index] = Buffer { start: NonNull::dangling(), len: 0 };
        self.ranges[index].fill(0..0);
    }
    /// All buffers, to read.
    ///
    /// # Panics
    /// While a part is being written.
    pub fn read(&self) -> ArenaReading<'_, T> {
        self.gate.read();
        ArenaReading { arena: self }
    }
    /// All parts of every buffer, to write.
    ///
    /// # Panics
    /// While the arena is being read, or a part is being written.
    pub fn write_whole(&self) -> ArenaWhole<'_, T> {
        // Made first: if a part is refused, those before it are given back.
        let mut whole = ArenaWhole { arena: self, parts: 0 };
        for part in 0..self.parts() {
            self.gate.write(part);
            whole.parts += 1;
        }
        whole
    }
    /// Part `part` of every buffer, to write.
    ///
    /// # Panics
    /// While the arena is being read, or this part is being written.
    pub fn write(&self, part: usize) -> ArenaWriting<'_, T> {
        assert!(part < self.parts(), "part {part} of {}", self.parts());
        self.gate.write(part);
        ArenaWriting { arena: self, part }
    }
}

/// All buffers of an [`Arena`], until dropped.
pub struct ArenaReading<'a, T> {
    arena: &'a Arena<T>,
}

impl<T> ArenaReading<'_, T> {
    /// One whole buffer.
    pub fn buffer(&self, index: usize) -> &[T] {
        // The gate counts this reader, so nothing is being written: the plain shared slice is sound.
        &self.arena.buffers[index]
    }
}

impl<T> Drop for ArenaReading<'_, T> {
    fn drop(&mut self) {
        self.arena.gate.end_read();
    }
}

/// One part of an [`Arena`], until dropped.
pub struct ArenaWriting<'a, T> {
    arena: &'a Arena<T>,
    part: usize,
}

impl<T> ArenaWriting<'_, T> {
    /// This part's ranges of the first `N` buffers.
    pub fn slices<const N: usize>(&mut self) -> [&mut [T]; N] {
        std::array::from_fn(|index| {
            let range = &self.arena.ranges[index][self.part];
            let start = self.arena.buffers[index].start.as_ptr();
            // SAFETY: the range lies in the buffer and no other part has it (`Arena::zeroed` checked both); the gate
            // lets one writer to this part and no reader; `&mut self` binds the slices to this one call.
            unsafe { std::slice::from_raw_parts_mut(start.add(range.start), range.len()) }
        })
    }
}

/// All parts of an [`Arena`], until dropped.
pub struct ArenaWhole<'a, T> {
    arena: &'a Arena<T>,
    /// How many are taken.
    parts: usize,
}

impl<T> ArenaWhole<'_, T> {
    /// The buffers.
    pub fn buffers(&mut self) -> impl Iterator<Item = &mut [T]> {
        self.arena.buffers.iter().map(|buffer| {
            // SAFETY: these are a buffer's numbers, whose pointer comes from its allocation; the gate let the writer of every part
            // in, which this is, and so neither another nor a reader, and numbers that are of no part are nobody's; each buffer
            // comes once, and `&mut self` binds the slices to this one call.
            unsafe { std::slice::from_raw_parts_mut(buffer.start.as_ptr(), buffer.len) }
        })
    }
}

impl<T> Drop for ArenaWhole<'_, T> {
    fn drop(&mut self) {
        (0..self.parts).for_each(|part| self.arena.gate.end_write(part));
    }
}

impl<T> Drop for ArenaWriting<'_, T> {
    fn drop(&mut self) {
        self.arena.gate.end_write(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const G: Geometry = Geometry { lanes: 4 };

    #[test]
    fn panels_narrow_the_last_one_to_a_multiple_of_a_vector() {
        let widths = |n| (0..G.panels(n)).map(|p| G.width(n, p)).collect::<Vec<_>>();
        assert_eq!(widths(1), [4]);
        assert_eq!(widths(8), [8]);
        assert_eq!(widths(17), [8, 8, 4]);
        assert_eq!(widths(21), [8, 8, 8]);
    }

    #[test]
    fn elements_have_places_of_their_own() {
        for (rows, lanes) in [(1, 1), (3, 5), (9, 8), (4, 17), (13, 21)] {
            let mut a = Panels::<f64>::zeroed(rows, lanes, G, "a").unwrap();
            (0..rows).for_each(|r| (0..lanes).for_each(|c| a.set(r, c, (100 * r + c) as f64 + 1.0)));
            for (r, c) in (0..rows).flat_map(|r| (0..lanes).map(move |c| (r, c))) {
                assert_eq!(a.get(r, c), (100 * r + c) as f64 + 1.0);
            }
            let sum: f64 = a.view().data().iter().sum();
            a.clear_padding();
            assert_eq!(sum, a.view().data().iter().sum::<f64>(), "elements are not padding");
        }
    }

    #[test]
    fn a_matrix_larger_than_numbers_count_is_refused() {
        // Rows times lanes would be 0 again.
        let rows = usize::MAX / 4 + 1;
        assert!(panics(|| _ = PanelsRef::<f32>::new(&[], rows, 4, G)));
        assert!(panics(|| _ = PanelsMut::<f32>::new(&mut [], rows, 4, G)));
        assert!(panics(|| Panels::<f32>::zeroed(1, 4, G, "test").unwrap().reshape(rows, 4)));
    }

    fn panics(f: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(f)).is_err()
    }

    #[test]
    fn parts_refuse_a_second_writer_and_readers_beside_writers() {
        let parts = Parts::new(vec![1, 2]);
        let mut first = parts.write(0);
        *first = 5;
        assert!(panics(|| drop(parts.write(0))));
        assert!(panics(|| drop(parts.read())));
        drop(parts.write(1));
        drop(first);
        let reading = parts.read();
        assert_eq!((*reading.get(0), *reading.get(1)), (5, 2));
        assert!(panics(|| drop(parts.write(1))));
        drop(reading);
        drop(parts.write(1));
    }

    #[test]
    fn a_loan_has_one_writer_a_panel_until_it_is_taken_back() {
        let mut matrix = Panels::<f32>::zeroed(3, 13, G, "test").unwrap();
        let loan = Loan::new(3);
        assert!(panics(|| drop(loan.write(0))), "nothing is lent");
        loan.lend(matrix.take());
        assert_eq!((matrix.rows(), matrix.lanes(), matrix.data_mut().len()), (0, 0, 0));
        std::thread::scope(|scope| {
            for p in 0..2 {
                let loan = &loan;
                scope.spawn(move || loan.write(p).numbers().fill(p as f32 + 1.0));
            }
        });
        let first = loan.write(0);
        assert!(panics(|| drop(loan.write(0))), "it is being written");
        assert!(panics(|| drop(loan.write(2))), "13 lanes are two panels");
        drop(first);
        assert!(panics(|| loan.lend(Panels::zeroed(3, 40, G, "test").unwrap())), "it has five panels");
        let matrix = loan.take_back();
        assert_eq!(matrix.panel(0), [1.0; 24]);
        assert_eq!(matrix.panel(1), [2.0; 24]);
        assert!(panics(|| drop(loan.take_back())));
        loan.lend(matrix);
        assert!(panics(|| loan.lend(Panels::zeroed(3, 13, G, "test").unwrap())), "one is lent");
    }

    #[test]
    fn an_arena_hands_out_disjoint_ranges_of_each_buffer() {
        let mut arena = Arena::<f32>::zeroed(vec![vec![0..2, 2..5], vec![0..0, 0..3]], "test").unwrap();
        {
            let (mut a, mut b) = (arena.write(0), arena.write(1));
            let [weights, mirror] = a.slices();
            weights.fill(1.0);
            assert!(mirror.is_empty());
            let [weights, mirror] = b.slices();
            weights.fill(2.0);
            mirror.fill(3.0);
        }
        assert_eq!(arena.buffer(0), [1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(arena.buffer(1), [3.0; 3]);
        {
            let second = arena.write(1);
            assert!(panics(|| drop(arena.write_whole())));
            drop(second);
            let reading = arena.read();
            assert!(panics(|| drop(arena.write_whole())));
            drop(reading);
            let mut whole = arena.write_whole();
            assert!(panics(|| drop(arena.write(0))) && panics(|| drop(arena.read())));
            let lengths: Vec<usize> = whole.buffers().map(|numbers| numbers.len()).collect();
            assert_eq!(lengths, [5, 3]);
            whole.buffers().for_each(|numbers| numbers.fill(4.0));
        }
        drop((arena.write(0), arena.write(1)));
        assert_eq!(arena.buffer(0), [4.0; 5]);
        assert!(panics(|| drop(Arena::<f32>::zeroed(vec![vec![0..2, 1..3]], "test"))));
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        assert!(matches!(Buffer::<f64>::zeroed(usize::MAX / 16, "x"), Err(Error::Memory { .. })));
        assert!(matches!(Buffer::<f64>::zeroed(usize::MAX, "x"), Err(Error::Memory { .. })));
    }
}
