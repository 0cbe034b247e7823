//! From a library's name to a card of AMD's, with one sentence for each thing that can be missing.

use std::{
    env,
    ffi::{CStr, c_char, c_int},
    mem,
};

use super::{
    RocmDriver,
    libamdhip::{LibHip, NO_DEVICE, Properties, SUCCESS, hip},
};
use crate::{
    DeviceInfo, GpuError, Vendor,
    library::{self, Library},
};

const LIBRARIES: [&str; 3] = ["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so"];

impl RocmDriver {
    /// Opens a card, by default the first. `HIP_VISIBLE_DEVICES` is the runtime's to honour.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] with one sentence.
    pub fn open(ordinal: Option<usize>) -> Result<Self, GpuError> {
        let library = Library::find(&LIBRARIES, &library::rocm_folders()).map_err(|e| unavailable(format!("no runtime of AMD: {e}")))?;
        let lib = LibHip::load(library).map_err(|e| unavailable(format!("{e}; ROCm 6.0 or newer is needed")))?;
        let ordinal = ordinal.unwrap_or(0);
        check_ordinal(ordinal, count(&lib)?)?;
        let info = describe(&lib, ordinal)?;
        let driver = Self::new(lib, info);
        driver.here().map_err(|e| unavailable(format!("{} (rocm:{ordinal}) cannot be used: {e}", driver.info.name)))?;
        Ok(driver)
    }
}

fn unavailable(sentence: String) -> GpuError {
    GpuError::Unavailable(sentence)
}

fn count(lib: &LibHip) -> Result<usize, GpuError> {
    let path = lib.library.path.display();
    let mut count = 0;
    // SAFETY: flags must be 0; a number is written.
    let code = match unsafe { (lib.hipInit)(0) } {
        // SAFETY: as above.
        SUCCESS => unsafe { (lib.hipGetDeviceCount)(&mut count) },
        code => code,
    };
    match (code, usize::try_from(count)) {
        (SUCCESS, Ok(count)) if count > 0 => Ok(count),
        (SUCCESS | NO_DEVICE, _) => Err(unavailable(format!("the runtime {path} finds no card ({})", visible()))),
        _ => Err(unavailable(format!("the runtime {path} does not start: {}", lib.reason(code)))),
    }
}

fn visible() -> String {
    let set: Vec<String> = ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"]
        .iter()
        .filter_map(|variable| Some(format!("{variable} is \"{}\"", env::var(variable).ok()?)))
        .collect();
    if set.is_empty() { "HIP_VISIBLE_DEVICES is not set".into() } else { library::list(&set, "and") }
}

fn check_ordinal(ordinal: usize, count: usize) -> Result<(), GpuError> {
    if ordinal < count {
        return Ok(());
    }
    let cards = if count == 1 { "1 card is".into() } else { format!("{count} cards are") };
    Err(unavailable(format!("there is no rocm:{ordinal}: {cards} visible, numbered from 0 ({})", visible())))
}

fn describe(lib: &LibHip, ordinal: usize) -> Result<DeviceInfo, GpuError> {
    // SAFETY: numbers and characters only.
    let mut properties: Properties = unsafe { mem::zeroed() };
    // SAFETY: a struct of this layout is written.
    unsafe { hip!(lib, hipGetDevicePropertiesR0600(&mut properties, ordinal as c_int))? };
    // "gfx942:sramecc+:xnack-": code for the name alone runs with every setting.
    let arch = text(&properties.gcn_arch_name);
    let arch = arch.split(':').next().unwrap_or_default().to_owned();
    let name = text(&properties.name);
    Ok(DeviceInfo {
        vendor: Vendor::Amd,
        ordinal,
        name: if name.is_empty() { arch.clone() } else { name },
        arch,
        warp: properties.warp_size as usize,
        num_multiprocessors: properties.multi_processor_count as usize,
        max_shared_bytes: properties.shared_mem_per_block,
        total_bytes: properties.total_global_mem,
    })
}

fn text(characters: &[c_char]) -> String {
    CStr::from_bytes_until_nul(bytemuck::cast_slice(characters)).unwrap_or_default().to_string_lossy().into_owned()
}
