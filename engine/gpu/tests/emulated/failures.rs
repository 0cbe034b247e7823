//! What a driver says when it cannot do what is asked.

use tokenflow_gpu::{DeviceChoice, Gpu, GpuError, Vendor};

use crate::card::on_each;

#[test]
fn memory_that_is_short_is_told_in_bytes() {
    on_each(|gpu, _| {
        let info = gpu.memory().unwrap();
        assert!(0 < info.free && info.free <= info.total && info.total == gpu.info().total_bytes);
        match gpu.allocate(info.total + 1).err().unwrap() {
            GpuError::OutOfMemory { place: "device", bytes, free, total } => {
                assert_eq!((bytes, total), (info.total + 1, info.total));
                assert!(free <= total);
            }
            error => panic!("{error}"),
        }
        let memory = gpu.allocate(1 << 20).unwrap();
        assert!(gpu.memory().unwrap().free <= info.free - (1 << 20));
        drop(memory);
        assert_eq!(gpu.memory().unwrap().free, info.free);
    });
}

#[test]
fn a_card_says_what_it_is() {
    on_each(|gpu, _| {
        let info = gpu.info();
        let expected = match info.vendor {
            Vendor::Nvidia => ("sm_90a", 32),
            Vendor::Amd => ("gfx942", 64),
        };
        assert_eq!((info.arch.as_str(), info.warp), expected);
        assert_eq!(info.name, "Emulated GPU");
        assert!(info.num_multiprocessors > 0 && info.max_shared_bytes >= 48 << 10);
        assert_eq!(gpu.driver().has_products(), info.vendor == Vendor::Nvidia);
    });
}

#[test]
fn an_ordinal_that_is_too_high_is_refused() {
    on_each(|gpu, _| {
        let (choice, name) = match gpu.info().vendor {
            Vendor::Nvidia => (DeviceChoice::Cuda(Some(7)), "cuda:7"),
            Vendor::Amd => (DeviceChoice::Rocm(Some(7)), "rocm:7"),
        };
        let error = Gpu::open(choice).err().unwrap().to_string();
        assert!(error.starts_with(&format!("there is no {name}: 1 card is visible, numbered from 0 (")), "{error}");
        assert!(error.contains("_VISIBLE_DEVICES"), "{error}");
    });
}
