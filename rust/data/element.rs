//! The numbers that users may have their data in, and how they become the computation's.
//!
//! A conversion is one rounding to nearest, as NumPy's `astype`: 64-bit integers do not pass through f64 on their way
//! to f32.

use crate::isa::Float;

/// A float of 16 bits (IEEE 754 binary16, NumPy's float16), by its bits. Data may be of it; nothing computes with it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half(pub u16);

/// A number that users may have their data in.
pub trait Element: Copy + Sync {
    /// Whether it may be NaN, infinite or beyond a float's range; an integer is not.
    const MAY_NOT_FIT: bool;
    /// The nearest number of the computation's type.
    fn convert<T: Float>(self) -> T;
    /// Whether it is finite and within the computation's range.
    fn fits<T: Float>(self) -> bool;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Element for $t {
            const MAY_NOT_FIT: bool = false;
            #[inline(always)]
            fn convert<T: Float>(self) -> T {
                if T::IS_SINGLE { T::from_f32(self as f32) } else { T::from_f64(self as f64) }
            }
            #[inline(always)]
            fn fits<T: Float>(self) -> bool {
                true
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Element for bool {
    const MAY_NOT_FIT: bool = false;
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        u8::from(self).convert()
    }
    #[inline(always)]
    fn fits<T: Float>(self) -> bool {
        true
    }
}

impl Element for f32 {
    const MAY_NOT_FIT: bool = true;
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        T::from_f32(self)
    }
    #[inline(always)]
    fn fits<T: Float>(self) -> bool {
        self.abs() <= f32::MAX
    }
}

impl Element for f64 {
    const MAY_NOT_FIT: bool = true;
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        T::from_f64(self)
    }
    #[inline(always)]
    fn fits<T: Float>(self) -> bool {
        self.abs() <= if T::IS_SINGLE { f64::from(f32::MAX) } else { f64::MAX }
    }
}

impl Element for Half {
    const MAY_NOT_FIT: bool = true;
    #[inline(always)]
    fn convert<T: Float>(self) -> T {
        // In plain arithmetic, which compilers vectorise for every instruction set: the exponent's bias differs by 112,
        // and a multiplication by a power of two is exact, of subnormal numbers too.
        let magnitude = u32::from(self.0 & 0x7fff) << 13;
        let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
        let beyond = f32::from_bits(magnitude | 0x7f80_0000);
        let sign = u32::from(self.0 & 0x8000) << 16;
        let positive = if magnitude < 0x0f80_0000 { finite } else { beyond };
        T::from_f32(f32::from_bits(positive.to_bits() | sign))
    }
    #[inline(always)]
    fn fits<T: Float>(self) -> bool {
        self.0 & 0x7c00 != 0x7c00
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the standard says that the bits mean.
    fn meaning(bits: u16) -> f64 {
        let (exponent, fraction) = (bits >> 10 & 31, f64::from(bits & 1023));
        let power = |exponent: u16| (1u64 << exponent) as f64 / (1u64 << 25) as f64;
        let magnitude = match exponent {
            0 => fraction * power(1),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * power(exponent),
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_half_converts_exactly() {
        for bits in 0..=u16::MAX {
            let (half, expected) = (Half(bits), meaning(bits));
            let (single, double): (f32, f64) = (half.convert(), half.convert());
            assert_eq!(single.is_nan(), expected.is_nan());
            assert_eq!(half.fits::<f32>(), expected.is_finite());
            if !expected.is_nan() {
                assert_eq!(single.to_bits(), (expected as f32).to_bits(), "{bits:#x}");
                assert_eq!(double, expected);
            }
        }
    }

    #[test]
    fn integers_round_once() {
        // A hair above the middle of two floats, which f64 cannot tell from the middle.
        let x = (1u64 << 60) + (1 << 36) + 1;
        assert_eq!(Element::convert::<f32>(x), ((1u64 << 60) + (1 << 37)) as f32);
        assert_eq!(Element::convert::<f32>(-(x as i64)), -Element::convert::<f32>(x));
        assert_eq!(Element::convert::<f64>(200u8), 200.0);
        assert_eq!(Element::convert::<f32>(true), 1.0);
    }

    #[test]
    fn a_number_fits_if_it_is_finite_and_within_range() {
        assert!(f64::from(f32::MAX).fits::<f32>() && f64::MAX.fits::<f64>() && (-f32::MAX).fits::<f64>());
        assert!(!1e300f64.fits::<f32>() && !f64::NAN.fits::<f64>() && !f32::INFINITY.fits::<f64>());
    }
}
