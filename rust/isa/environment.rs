//! The floating-point environment: a thread's rounding mode and its treatment of subnormal numbers.
//!
//! A caller whose thread flushes subnormals (some audio and graphics libraries set that) would get other bits.
//! Kernels therefore run under [`DefaultEnvironment`], which puts the caller's settings back when it ends.

use std::marker::PhantomData;

/// Round to nearest, keep subnormals, raise nothing: in force for this thread until dropped.
pub struct DefaultEnvironment {
    saved: usize,
    /// The register belongs to a thread, so the guard must not leave it.
    thread: PhantomData<*const ()>,
}

impl DefaultEnvironment {
    /// Saves the thread's settings and sets the default ones.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let saved = read();
        if saved != DEFAULT {
            write(DEFAULT);
        }
        DefaultEnvironment { saved, thread: PhantomData }
    }
}

impl Drop for DefaultEnvironment {
    fn drop(&mut self) {
        if self.saved != DEFAULT {
            write(self.saved);
        }
    }
}

/// MXCSR with every exception masked, rounding to nearest, no flushing.
#[cfg(target_arch = "x86_64")]
const DEFAULT: usize = 0x1f80;

#[cfg(target_arch = "x86_64")]
fn read() -> usize {
    let mut value = 0u32;
    // SAFETY: stores the 32-bit register to a live, writable u32 and changes nothing else. The sticky exception
    // flags (low six bits) are not a setting and are masked off.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value as usize & !0x3f
}

#[cfg(target_arch = "x86_64")]
fn write(value: usize) {
    let value = value as u32;
    // SAFETY: loads a value that `read` returned or the default one, neither of which has a reserved bit set.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

/// FPCR with rounding to nearest, no flushing, no traps.
#[cfg(target_arch = "aarch64")]
const DEFAULT: usize = 0;

#[cfg(target_arch = "aarch64")]
fn read() -> usize {
    let value: u64;
    // SAFETY: reads a register that user code may read.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value as usize
}

#[cfg(target_arch = "aarch64")]
fn write(value: usize) {
    // SAFETY: writes a value that `read` returned or the default one.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value as u64, options(nomem, nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const DEFAULT: usize = 0;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> usize {
    DEFAULT
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_: usize) {}
