//! Plain arrays, for processors without a kernel of their own; the compiler vectorises what it can.

use std::array::from_fn;

use super::{LANES, Simd};

#[derive(Clone, Copy)]
pub(in super::super) struct Portable;

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [u32; LANES];

    const TILE_ROWS: [usize; 2] = [2, 1];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: the caller promises sixteen readable values.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, x: Self::F, p: *mut f32) {
        // SAFETY: the caller promises sixteen writable values.
        unsafe { p.cast::<Self::F>().write_unaligned(x) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    unsafe fn load_bits(self, p: *const u32) -> Self::I {
        // SAFETY: the caller promises sixteen readable values.
        unsafe { p.cast::<Self::I>().read_unaligned() }
    }

    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        x.map(f32::from_bits)
    }

    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        x.map(f32::to_bits)
    }

    #[inline(always)]
    fn and(self, x: Self::I, mask: u32) -> Self::I {
        x.map(|x| x & mask)
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shl<const N: u32>(self, x: Self::I) -> Self::I {
        x.map(|x| x << N)
    }

    #[inline(always)]
    fn shr<const N: u32>(self, x: Self::I) -> Self::I {
        x.map(|x| x >> N)
    }

    #[inline(always)]
    fn shr_by(self, x: Self::I, count: u32) -> Self::I {
        x.map(|x| x >> count)
    }

    #[inline(always)]
    unsafe fn store_bits(self, x: Self::I, p: *mut u32) {
        // SAFETY: the caller promises sixteen writable values.
        unsafe { p.cast::<Self::I>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn widen_u8(self, p: *const u8) -> Self::I {
        // SAFETY: the caller promises sixteen readable values.
        unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(u32::from)
    }

    #[inline(always)]
    unsafe fn widen_i8(self, p: *const u8) -> Self::I {
        // SAFETY: the caller promises sixteen readable values.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(|x| i32::from(x).cast_unsigned())
    }

    #[inline(always)]
    unsafe fn widen_u16(self, p: *const u16) -> Self::I {
        // SAFETY: the caller promises sixteen readable values.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(u32::from)
    }

    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        x.map(|x| x.cast_signed() as f32)
    }
}
