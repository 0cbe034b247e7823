//! From a library's name to a card that kernels can run on, with one sentence for each thing that can be missing.

use std::{
    env,
    ffi::{CStr, c_char, c_int},
    ptr,
};

use cudarc::driver::sys::{CUctx_flags, CUdevice_attribute};

use super::{
    CudaDriver,
    libcuda::{LibCuda, NO_DEVICE, SUCCESS, cu},
};
use crate::{DeviceInfo, GpuError, Vendor, library::Library};

const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
/// What all NVRTC and cublasLt of CUDA 12 and 13 ask for at least.
const MIN_CUDA: (i32, i32) = (12, 0);
/// bf16 in tensor cores and asynchronous copies: Ampere.
const MIN_CAPABILITY: (i32, i32) = (8, 0);

impl CudaDriver {
    /// Opens a card, by default the first. `CUDA_VISIBLE_DEVICES` is the driver's to honour.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] with one sentence.
    pub fn open(ordinal: Option<usize>) -> Result<Self, GpuError> {
        let folders = ["/usr/lib/wsl/lib", "/run/opengl-driver/lib"].map(Into::into);
        let library = Library::find(&LIBRARIES, &folders).map_err(|e| unavailable(format!("no driver of NVIDIA: {e}")))?;
        let lib =
            LibCuda::load(library).map_err(|e| unavailable(format!("{e}; a driver of version 525.60 (CUDA 12.0) or newer is needed")))?;
        let version = initialize(&lib)?;
        let ordinal = ordinal.unwrap_or(0);
        let device = device(&lib, ordinal)?;
        let info = describe(&lib, device, ordinal)?;
        let mut context = ptr::null_mut();
        // SAFETY: the device is one that the driver gave; waits sleep in every thread that uses its context.
        unsafe {
            // Where the context is in use already its flags stay, which costs only processor time in waits.
            let _ = (lib.cuDevicePrimaryCtxSetFlags_v2)(device, CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32);
            cu!(lib, cuDevicePrimaryCtxRetain(&mut context, device))
                .map_err(|e| unavailable(format!("{} (cuda:{ordinal}) cannot be used: {e}", info.name)))?;
        }
        Ok(Self::new(lib, info, device, context, version))
    }
}

fn unavailable(sentence: String) -> GpuError {
    GpuError::Unavailable(sentence)
}

/// The version of CUDA that the driver speaks.
fn initialize(lib: &LibCuda) -> Result<(i32, i32), GpuError> {
    let path = lib.library.path.display();
    let mut version = 0;
    // SAFETY: a number is written; this may be called before cuInit.
    let version = unsafe { cu!(lib, cuDriverGetVersion(&mut version)) }.map(|()| (version / 1000, version % 1000 / 10))?;
    if version < MIN_CUDA {
        return Err(unavailable(format!(
            "the driver {path} speaks CUDA {}.{}, and CUDA {}.{} is needed: a driver of version 525.60 or newer",
            version.0, version.1, MIN_CUDA.0, MIN_CUDA.1
        )));
    }
    // SAFETY: flags must be 0.
    match unsafe { (lib.cuInit)(0) } {
        SUCCESS => Ok(version),
        NO_DEVICE => Err(no_card(lib)),
        code => Err(unavailable(format!("the driver {path} does not start: cuInit failed: {}", lib.reason(code)))),
    }
}

fn no_card(lib: &LibCuda) -> GpuError {
    unavailable(format!("the driver {} finds no card ({})", lib.library.path.display(), visible()))
}

fn visible() -> String {
    match env::var("CUDA_VISIBLE_DEVICES") {
        Ok(value) => format!("CUDA_VISIBLE_DEVICES is \"{value}\""),
        Err(_) => "CUDA_VISIBLE_DEVICES is not set".into(),
    }
}

fn device(lib: &LibCuda, ordinal: usize) -> Result<c_int, GpuError> {
    let (mut count, mut device) = (0, 0);
    // SAFETY: a number is written.
    unsafe { cu!(lib, cuDeviceGetCount(&mut count))? };
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 {
        return Err(no_card(lib));
    }
    if ordinal >= count {
        let cards = if count == 1 { "1 card is".into() } else { format!("{count} cards are") };
        return Err(unavailable(format!("there is no cuda:{ordinal}: {cards} visible, numbered from 0 ({})", visible())));
    }
    // SAFETY: a number is written; the ordinal is one of the driver's.
    unsafe { cu!(lib, cuDeviceGet(&mut device, ordinal as c_int))? };
    Ok(device)
}

fn describe(lib: &LibCuda, device: c_int, ordinal: usize) -> Result<DeviceInfo, GpuError> {
    let attribute = |attribute: CUdevice_attribute| {
        let mut value = 0;
        // SAFETY: a number is written.
        unsafe { cu!(lib, cuDeviceGetAttribute(&mut value, attribute, device)) }.map(|()| value)
    };
    let mut name = [0 as c_char; 256];
    let mut total_bytes = 0;
    // SAFETY: a string with its end is written within the length, and a number.
    let name = unsafe {
        cu!(lib, cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device))?;
        cu!(lib, cuDeviceTotalMem_v2(&mut total_bytes, device))?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let capability = (
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if capability < MIN_CAPABILITY {
        return Err(unavailable(format!(
            "{name} (cuda:{ordinal}) has compute capability {}.{}, and {}.{} is needed (Ampere or newer)",
            capability.0, capability.1, MIN_CAPABILITY.0, MIN_CAPABILITY.1
        )));
    }
    Ok(DeviceInfo {
        vendor: Vendor::Nvidia,
        ordinal,
        name,
        arch: architecture(capability),
        warp: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)? as usize,
        num_multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        max_shared_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        total_bytes,
    })
}

/// Hopper's own instructions are kept back from code that claims to run on what comes after it as well.
fn architecture((major, minor): (i32, i32)) -> String {
    format!("sm_{major}{minor}{}", if (major, minor) == (9, 0) { "a" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_as_compilers_do() {
        assert_eq!([(8, 0), (8, 9), (9, 0), (10, 0), (12, 1)].map(architecture), ["sm_80", "sm_89", "sm_90a", "sm_100", "sm_121"]);
    }
}
