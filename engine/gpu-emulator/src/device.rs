//! One emulated device: memory that lives as long as it does, and launches.

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_void},
    marker::PhantomData,
};

use bytemuck::Pod;

use crate::library::Library;

pub struct Device<'a> {
    library: &'a Library,
    raw: *mut c_void,
    /// Decides the order of threads; every launch has its own.
    seed: Cell<u64>,
}

/// Device memory, as kernels' arguments hold it.
#[repr(transparent)]
pub struct Pointer<T> {
    address: *mut c_void,
    element: PhantomData<T>,
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

// SAFETY: an address of memory that outlives it; only kernels and the device's owner look there.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    pub const NULL: Self = Self { address: std::ptr::null_mut(), element: PhantomData };

    /// The element at `index`.
    pub fn add(self, index: usize) -> Self {
        Self { address: self.address.wrapping_byte_add(index * size_of::<T>()), element: PhantomData }
    }

    pub fn cast<U>(self) -> Pointer<U> {
        Pointer { address: self.address, element: PhantomData }
    }

    /// As arguments hold what may be of several types.
    pub fn any(self) -> Pointer<c_void> {
        Pointer { address: self.address, element: PhantomData }
    }
}

impl<'a> Device<'a> {
    pub fn new(library: &'a Library, seed: u64) -> Self {
        // SAFETY: no preconditions.
        let raw = unsafe { (library.create)() };
        assert!(!raw.is_null(), "address space for an emulated device");
        Self { library, raw, seed: Cell::new(seed) }
    }

    pub fn warp(&self) -> u32 {
        self.library.warp
    }

    /// Memory whose bytes are all 0xff: NaN as a number, far out of bounds as an index.
    pub fn allocate<T: Copy>(&self, len: usize) -> Pointer<T> {
        // SAFETY: the device lives.
        let address = unsafe { (self.library.allocate)(self.raw, len * size_of::<T>()) };
        assert!(!address.is_null(), "{} more bytes do not fit on the emulated device", len * size_of::<T>());
        Pointer { address, element: PhantomData }
    }

    pub fn upload<T: Copy>(&self, values: &[T]) -> Pointer<T> {
        let pointer = self.allocate(values.len());
        self.write(pointer, values);
        pointer
    }

    /// `pointer` must have room for them.
    pub fn write<T: Copy>(&self, pointer: Pointer<T>, values: &[T]) {
        // SAFETY: allocated by this device, which runs nothing now.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), pointer.address.cast::<T>(), values.len()) };
    }

    pub fn download<T: Pod>(&self, pointer: Pointer<T>, len: usize) -> Vec<T> {
        // SAFETY: allocated by this device with at least this length, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(pointer.address.cast::<T>(), len).to_vec() }
    }

    /// # Errors
    /// What the emulator objects to.
    pub fn launch<A: Copy>(&self, kernel: &str, grid: [u32; 3], block: u32, dynamic_shared: usize, args: &A) -> Result<(), String> {
        self.seed.set(self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        let name = CString::new(kernel).expect("no NUL");
        let args: *const A = args;
        let block = [block, 1, 1];
        // SAFETY: the emulator compares the size of the arguments with what the kernel takes, and every access with the memory that it
        // handed out; the message lives until the next launch.
        let message = unsafe {
            let seed = self.seed.get() >> 8;
            CStr::from_ptr((self.library.launch)(
                self.raw,
                name.as_ptr(),
                grid.as_ptr(),
                block.as_ptr(),
                dynamic_shared,
                args.cast(),
                size_of::<A>(),
                seed,
            ))
        };
        match message.to_str().expect("UTF-8") {
            "" => Ok(()),
            message => Err(message.into()),
        }
    }
}

// SAFETY: a device is nobody else's, and belongs to no thread between two calls.
unsafe impl Send for Device<'_> {}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        // SAFETY: created by this library, and used no more.
        unsafe { (self.library.destroy)(self.raw) };
    }
}
