//! Tiles of 16 rows of 16 f32, to which products of pairs of bfloat16 are added: Intel's AMX, and its oracle in plain Rust.
//!
//! A tile product takes 16 rows of up to 16 pairs and as many rows of 16 pairs. In each place of the result it sums the products
//! of the even numbers, then of the odd numbers, each from zero and each term fused; adds the two, and that to what stands there.
//! Every result is rounded once, and subnormal numbers are zero on their way in and out ([`dot`]).
//!
//! What stays in tile registers between instructions is no compiler's business, so a whole sum is one block of assembly
//! ([`Tiles::sum`]): it loads four tiles, adds to them and stores them.

use super::bf16::{flush, parts};

/// Rows of a tile, f32 of a row, and the most pairs that one tile product adds up.
pub const TILE: usize = 16;

/// Pairs whose products stand one after the other: of both operands, `steps` times [`TILE`] of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Run {
    /// Rows of 16 pairs.
    pub a: *const f32,
    /// Rows of 16 pairs, the first of which meets the first pair of a row of `a`.
    pub b: *const f32,
    /// How many tile products follow each other.
    pub steps: usize,
}

/// The sums that make a square of two by two tiles: `c = init + a b` for some runs and a tail.
///
/// Distances are in bytes. Rows of a run's `a` are 64 bytes apart.
#[repr(C)]
pub struct Square {
    /// What the tiles begin with: upper left, upper right, lower left, lower right.
    pub init: [*const f32; 4],
    /// From one row of `init` to the next; 0 where all are the same.
    pub init_stride: usize,
    /// Where the tiles go; may be `init`.
    pub c: [*mut f32; 4],
    /// From one row of `c` to the next.
    pub c_stride: usize,
    /// The runs.
    pub runs: *const Run,
    /// How many, at least one.
    pub n_runs: usize,
    /// From one step of `a` to the next.
    pub a_step: usize,
    /// From the upper tile's rows of `a` to the lower tile's.
    pub a_lower: usize,
    /// From one row of `b` to the next.
    pub b_stride: usize,
    /// From one step of `b` to the next.
    pub b_step: usize,
    /// From the left tile's lanes of `b` to the right tile's.
    pub b_right: usize,
    /// Pairs behind the runs, fewer than [`TILE`]: of them the tiles are configured too.
    pub tail: usize,
    /// Where they stand.
    pub tail_a: *const f32,
    /// From one row of `tail_a` to the next.
    pub tail_a_stride: usize,
    /// From the upper tile's rows of `tail_a` to the lower tile's.
    pub tail_a_lower: usize,
    /// Where their partners stand, as in a run.
    pub tail_b: *const f32,
}

/// Who makes tile products.
pub trait Tiles: Copy + Send + Sync + 'static {
    /// The sums of `square`, in tiles of `rows` rows.
    ///
    /// # Safety
    /// `rows` is in 1..=16, `square.tail` below 16 and `square.n_runs` not 0; all that `square` names, in `rows` rows of every tile of `a`, `init` and
    /// `c`, can be read, or of `c` be written.
    unsafe fn sum(self, rows: usize, square: &Square);
    /// Rounds of four full tile products in registers alone; returns the floating-point operations done.
    fn multiply_add(self, rounds: usize) -> usize;
}

/// What a tile product does in one place, to `acc`: `a` and `b` are its up to 16 pairs.
pub fn dot(pairs: impl Iterator<Item = (f32, f32)>, acc: f32) -> f32 {
    let (mut even, mut odd) = (0.0, 0.0);
    for (x, y) in pairs {
        let ([x_even, x_odd], [y_even, y_odd]) = (parts(x).map(flush), parts(y).map(flush));
        even = flush(x_even.mul_add(y_even, even));
        odd = flush(x_odd.mul_add(y_odd, odd));
    }
    flush(flush(acc) + flush(even + odd))
}

/// Tile products in plain Rust, for tests on CPUs without the instructions.
#[derive(Clone, Copy)]
pub struct PlainTiles;

impl PlainTiles {
    /// One tile product: `c += a b`.
    ///
    /// # Safety
    /// `rows` rows of `pairs` pairs can be read at `a`, `pairs` rows of 16 at `b`, and `rows` rows of 16 f32 be changed at `c`.
    unsafe fn product(rows: usize, pairs: usize, a: (*const f32, usize), b: (*const f32, usize), c: (*mut f32, usize)) {
        for (row, lane) in (0..rows).flat_map(|row| (0..TILE).map(move |lane| (row, lane))) {
            // SAFETY: the caller vouches for these places.
            unsafe {
                let c = c.0.byte_add(row * c.1).add(lane);
                let at = |k: usize| (*a.0.byte_add(row * a.1).add(k), *b.0.byte_add(k * b.1).add(lane));
                *c = dot((0..pairs).map(at), *c);
            }
        }
    }
}

impl Tiles for PlainTiles {
    unsafe fn sum(self, rows: usize, s: &Square) {
        assert!((1..=TILE).contains(&rows) && s.tail < TILE && s.n_runs > 0);
        for tile in 0..4 {
            let (lower, right) = (tile / 2, tile % 2);
            let mut c = [0.0f32; TILE * TILE];
            // SAFETY: the caller vouches for all that is named.
            unsafe {
                for row in 0..rows {
                    let init = s.init[tile].byte_add(row * s.init_stride);
                    c[row * TILE..][..TILE].copy_from_slice(std::slice::from_raw_parts(init, TILE));
                }
                let into = (c.as_mut_ptr(), size_of::<[f32; TILE]>());
                for run in std::slice::from_raw_parts(s.runs, s.n_runs) {
                    for step in 0..run.steps {
                        let a = run.a.byte_add(step * s.a_step + lower * s.a_lower);
                        let b = run.b.byte_add(step * s.b_step + right * s.b_right);
                        PlainTiles::product(rows, TILE, (a, size_of::<[f32; TILE]>()), (b, s.b_stride), into);
                    }
                }
                if s.tail > 0 {
                    let a = s.tail_a.byte_add(lower * s.tail_a_lower);
                    let b = s.tail_b.byte_add(right * s.b_right);
                    PlainTiles::product(rows, s.tail, (a, s.tail_a_stride), (b, s.b_stride), into);
                }
                for row in 0..rows {
                    s.c[tile].byte_add(row * s.c_stride).copy_from_nonoverlapping(c[row * TILE..].as_ptr(), TILE);
                }
            }
        }
    }

    fn multiply_add(self, rounds: usize) -> usize {
        std::hint::black_box((0..rounds).fold(0.0, |acc, _| dot([(1.0, 1.0)].into_iter(), acc)));
        4 * rounds
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use amx::Amx;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use super::super::bf16::Avx512Bf16;
    use super::{Run, Square, TILE, Tiles};
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::mem::offset_of;
    use std::sync::OnceLock;

    /// The number of the registers in the processor's list of states that a kernel saves.
    const TILE_DATA: libc::c_long = 18;
    /// `arch_prctl`: which of these states programs may ask for, and to ask for one.
    const SUPPORTED: libc::c_long = 0x1021;
    const REQUEST: libc::c_long = 0x1023;

    /// The proof that this CPU has AMX with BF16, AVX-512 with BF16 beside it, and that this process may use the tiles.
    #[derive(Clone, Copy)]
    pub struct Amx(Avx512Bf16);

    impl Amx {
        /// Whether the CPU has the instructions and the kernel hands them out.
        pub fn is_available() -> bool {
            static AVAILABLE: OnceLock<bool> = OnceLock::new();
            *AVAILABLE.get_or_init(|| Avx512Bf16::new().is_some() && has_tiles() && is_supported())
        }

        /// The token, once the kernel has been asked for the tiles. Only then, as from there on it refuses stacks for signal
        /// handlers that the tiles would not fit on.
        ///
        /// # Errors
        /// Where it refuses: the error's number.
        ///
        /// # Panics
        /// Where [`is_available`](Self::is_available) says no.
        pub fn request() -> Result<Self, i32> {
            assert!(Amx::is_available(), "the CPU has AMX");
            // SAFETY: the call changes nothing but what the process may do.
            match unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } {
                0 => Ok(Amx(Avx512Bf16::new().expect("it was there"))),
                _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
            }
        }

        /// The vectors beside the tiles.
        pub fn vectors(self) -> Avx512Bf16 {
            self.0
        }
    }

    /// Whether the CPU has AMX-BF16, with tiles as large as they are here, and the system saves their registers.
    #[allow(unused_unsafe)] // in newer versions of Rust the instruction is safe
    fn has_tiles() -> bool {
        const PALETTES: u32 = 0x1d;
        // SAFETY: every x86-64 CPU has the instruction.
        let leaf = |leaf: u32, sub: u32| unsafe { __cpuid_count(leaf, sub) };
        if leaf(0, 0).eax < PALETTES {
            return false;
        }
        // Bits 22 and 24: AMX-BF16, AMX-TILE.
        let (features, palette) = (leaf(7, 0).edx, leaf(PALETTES, 1));
        let (bytes, row, names, rows) =
            (palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
        // SAFETY: a CPU with AVX-512, which was found, has the instruction.
        let saved = unsafe { _xgetbv(0) };
        let in_full = (bytes, row, names, rows) == (1024, 64, 8, TILE as u32);
        features & (1 << 22 | 1 << 24) == 1 << 22 | 1 << 24 && in_full && saved >> 17 & 3 == 3
    }

    /// Whether the kernel hands the tiles out.
    fn is_supported() -> bool {
        let mut states = 0u64;
        // SAFETY: the kernel writes one number there.
        let failed = unsafe { libc::syscall(libc::SYS_arch_prctl, SUPPORTED, &raw mut states) } != 0;
        !failed && states >> TILE_DATA & 1 == 1
    }

    /// The tiles' shapes, as the processor reads them.
    #[derive(Clone, Copy, PartialEq, Eq)]
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Shapes {
        const NONE: Shapes = Shapes { palette: 0, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };

        /// Tiles 0 to 3 hold sums, 4 and 5 operands, 6 and 7 those of a tail (of as many pairs as a tile has, where there is none).
        fn new(rows: usize, tail: usize) -> Self {
            let (mut shapes, tail) = (Shapes { palette: 1, ..Shapes::NONE }, if tail == 0 { TILE } else { tail });
            for tile in 0..8 {
                shapes.row_bytes[tile] = 64;
                shapes.rows[tile] = rows as u8;
            }
            shapes.row_bytes[6] = 4 * tail as u16;
            (shapes.rows[5], shapes.rows[7]) = (TILE as u8, tail as u8);
            shapes
        }

        /// Gives the tiles these shapes, where they do not have them: to look takes a tenth of the time.
        fn configure(self) {
            let mut now = Shapes::NONE;
            // SAFETY: the token that led here proves the instructions; both structures have 64 bytes, and these shapes are valid:
            // 1 to 16 rows of 4 to 64 bytes. The tiles' contents, which the second instruction clears, are nobody's.
            unsafe {
                asm!("sttilecfg [{}]", in(reg) &raw mut now, options(nostack, preserves_flags));
                if now != self {
                    asm!(
                        "ldtilecfg [{}]",
                        in(reg) &raw const self,
                        out("tmm0") _,
                        out("tmm1") _,
                        out("tmm2") _,
                        out("tmm3") _,
                        out("tmm4") _,
                        out("tmm5") _,
                        out("tmm6") _,
                        out("tmm7") _,
                        options(nostack, preserves_flags, readonly),
                    );
                }
            }
        }
    }

    impl Tiles for Amx {
        #[inline]
        unsafe fn sum(self, rows: usize, square: &Square) {
            assert!((1..=TILE).contains(&rows) && square.tail < TILE && square.n_runs > 0);
            Shapes::new(rows, square.tail).configure();
            // SAFETY: the token proves the instructions, the tiles have their shapes, and the caller vouches for the memory.
            // Nothing but memory named by `square` and its runs, and the registers listed, is touched.
            unsafe {
                asm!(
                    // The sums' beginning.
                    "mov {s}, [{q} + {init_stride}]",
                    "mov {x}, [{q} + {init}]",
                    "tileloadd tmm0, [{x} + {s}*1]",
                    "mov {x}, [{q} + {init} + 8]",
                    "tileloadd tmm1, [{x} + {s}*1]",
                    "mov {x}, [{q} + {init} + 16]",
                    "tileloadd tmm2, [{x} + {s}*1]",
                    "mov {x}, [{q} + {init} + 24]",
                    "tileloadd tmm3, [{x} + {s}*1]",
                    "mov {s}, 64",
                    "mov {bs}, [{q} + {b_stride}]",
                    "mov {run}, [{q} + {runs}]",
                    "mov {left}, [{q} + {n_runs}]",
                    // Run after run.
                    "2:",
                    "mov {a}, [{run} + {run_a}]",
                    "mov {b}, [{run} + {run_b}]",
                    "mov {n}, [{run} + {run_steps}]",
                    "add {run}, {run_size}",
                    "test {n}, {n}",
                    "jz 4f",
                    // Step after step, the left operand's tiles each loaded once.
                    "3:",
                    "tileloadd tmm4, [{a} + {s}*1]",
                    "tileloadd tmm5, [{b} + {bs}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm5",
                    "mov {x}, [{q} + {b_right}]",
                    "add {x}, {b}",
                    "tileloadd tmm5, [{x} + {bs}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm5",
                    "mov {x}, [{q} + {a_lower}]",
                    "add {x}, {a}",
                    "tileloadd tmm4, [{x} + {s}*1]",
                    "tdpbf16ps tmm3, tmm4, tmm5",
                    "tileloadd tmm5, [{b} + {bs}*1]",
                    "tdpbf16ps tmm2, tmm4, tmm5",
                    "add {a}, [{q} + {a_step}]",
                    "add {b}, [{q} + {b_step}]",
                    "dec {n}",
                    "jnz 3b",
                    "4:",
                    "dec {left}",
                    "jnz 2b",
                    // What is left.
                    "cmp qword ptr [{q} + {tail}], 0",
                    "je 5f",
                    "mov {s}, [{q} + {tail_a_stride}]",
                    "mov {a}, [{q} + {tail_a}]",
                    "mov {b}, [{q} + {tail_b}]",
                    "tileloadd tmm6, [{a} + {s}*1]",
                    "tileloadd tmm7, [{b} + {bs}*1]",
                    "tdpbf16ps tmm0, tmm6, tmm7",
                    "mov {x}, [{q} + {b_right}]",
                    "add {x}, {b}",
                    "tileloadd tmm7, [{x} + {bs}*1]",
                    "tdpbf16ps tmm1, tmm6, tmm7",
                    "add {a}, [{q} + {tail_a_lower}]",
                    "tileloadd tmm6, [{a} + {s}*1]",
                    "tdpbf16ps tmm3, tmm6, tmm7",
                    "tileloadd tmm7, [{b} + {bs}*1]",
                    "tdpbf16ps tmm2, tmm6, tmm7",
                    "5:",
                    // The sums' end.
                    "mov {s}, [{q} + {c_stride}]",
                    "mov {x}, [{q} + {c}]",
                    "tilestored [{x} + {s}*1], tmm0",
                    "mov {x}, [{q} + {c} + 8]",
                    "tilestored [{x} + {s}*1], tmm1",
                    "mov {x}, [{q} + {c} + 16]",
                    "tilestored [{x} + {s}*1], tmm2",
                    "mov {x}, [{q} + {c} + 24]",
                    "tilestored [{x} + {s}*1], tmm3",
                    q = in(reg) square,
                    s = out(reg) _,
                    x = out(reg) _,
                    a = out(reg) _,
                    b = out(reg) _,
                    n = out(reg) _,
                    bs = out(reg) _,
                    run = out(reg) _,
                    left = out(reg) _,
                    init = const offset_of!(Square, init),
                    init_stride = const offset_of!(Square, init_stride),
                    c = const offset_of!(Square, c),
                    c_stride = const offset_of!(Square, c_stride),
                    runs = const offset_of!(Square, runs),
                    n_runs = const offset_of!(Square, n_runs),
                    a_step = const offset_of!(Square, a_step),
                    a_lower = const offset_of!(Square, a_lower),
                    b_stride = const offset_of!(Square, b_stride),
                    b_step = const offset_of!(Square, b_step),
                    b_right = const offset_of!(Square, b_right),
                    tail = const offset_of!(Square, tail),
                    tail_a = const offset_of!(Square, tail_a),
                    tail_a_stride = const offset_of!(Square, tail_a_stride),
                    tail_a_lower = const offset_of!(Square, tail_a_lower),
                    tail_b = const offset_of!(Square, tail_b),
                    run_a = const offset_of!(Run, a),
                    run_b = const offset_of!(Run, b),
                    run_steps = const offset_of!(Run, steps),
                    run_size = const size_of::<Run>(),
                    out("tmm0") _,
                    out("tmm1") _,
                    out("tmm2") _,
                    out("tmm3") _,
                    out("tmm4") _,
                    out("tmm5") _,
                    out("tmm6") _,
                    out("tmm7") _,
                    options(nostack),
                );
            }
        }

        fn multiply_add(self, rounds: usize) -> usize {
            if rounds == 0 {
                return 0;
            }
            Shapes::new(TILE, 0).configure();
            // SAFETY: the token proves the instructions, and nothing but registers is touched.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    "2:",
                    "tdpbf16ps tmm0, tmm4, tmm5",
                    "tdpbf16ps tmm1, tmm4, tmm5",
                    "tdpbf16ps tmm2, tmm4, tmm5",
                    "tdpbf16ps tmm3, tmm4, tmm5",
                    "dec {}",
                    "jnz 2b",
                    inout(reg) rounds => _,
                    out("tmm0") _,
                    out("tmm1") _,
                    out("tmm2") _,
                    out("tmm3") _,
                    out("tmm4") _,
                    out("tmm5") _,
                    options(nostack, nomem),
                );
            }
            4 * TILE * TILE * TILE * 4 * rounds
        }
    }
}
