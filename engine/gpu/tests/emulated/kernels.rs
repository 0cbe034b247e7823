//! Kernels from their texts to launches, and what is kept of them on disk.

use std::{fs, path::Path};

use parking_lot::Mutex;
use tokenflow_gpu::{
    DevicePtr, Gpu, GpuError, Grid, Kernels,
    kernels::{LoadOptions, Origin, Source, Sources},
};

use crate::card::{download, on_each, upload};

#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Add {
    x: DevicePtr,
    sums: DevicePtr,
    total: u32,
    amount: u32,
}

const ADD: &str = include_str!("../kernels/add.cu");
const SWAP: &str = include_str!("../kernels/swap.cu");
const DEVICE: &str = include_str!("../../../src/backend/cuda/kernels/device.cuh");

fn sources() -> Sources<'static> {
    let files = vec![Source { name: "add.cu", text: ADD }, Source { name: "swap.cu", text: SWAP }];
    Sources { files, headers: vec![Source { name: "device.cuh", text: DEVICE }], defines: Vec::new() }
}

/// Loads, and tells where each file came from, by name.
fn load(gpu: &Gpu, sources: &Sources, cache: Option<&Path>, prebuilt: Option<&Path>) -> Result<(Kernels, Vec<Origin>), GpuError> {
    let heard = Mutex::new(Vec::new());
    let progress = |p: tokenflow_gpu::kernels::Progress| {
        let mut heard = heard.lock();
        assert_eq!((p.done, p.total), (heard.len() + 1, sources.files.len()));
        heard.push((p.file.to_owned(), p.origin));
    };
    let options = LoadOptions { prebuilt: prebuilt.map(Into::into), cache: cache.map(Into::into), progress: &progress };
    let kernels = Kernels::load(gpu, sources, &options)?;
    let mut heard = heard.into_inner();
    heard.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((kernels, heard.into_iter().map(|(_, origin)| origin).collect()))
}

#[test]
fn kernels_run_with_their_arguments_and_shared_memory() {
    on_each(|gpu, _| {
        let (kernels, _) = load(gpu, &sources(), None, None).unwrap();
        let stream = gpu.stream().unwrap();
        let values: Vec<u32> = (0..1000).collect();
        let x = upload(gpu, &stream, &values);
        let sums = upload(gpu, &stream, &[0_u32; 4]);
        let args = Add { x: x.start(), sums: sums.start(), total: 1000, amount: 5 };
        let grid = Grid { blocks: [4, 1, 1], threads: 256, shared_bytes: 0 };
        let (add, sum) = (kernels.get("add").unwrap(), kernels.get("sum").unwrap());
        // SAFETY: in bounds, and waited for.
        unsafe {
            stream.launch(add, grid, &args).unwrap();
            stream.launch(sum, Grid { shared_bytes: 1024, ..grid }, &args).unwrap();
        }
        let expected: Vec<u32> = values.iter().map(|v| v + 5).collect();
        assert_eq!(download::<u32>(gpu, &stream, &x), expected);
        let expected: Vec<u32> = expected.chunks(256).map(|block| block.iter().sum()).collect();
        assert_eq!(download::<u32>(gpu, &stream, &sums), expected);

        // SAFETY: nothing is launched.
        let error = unsafe { stream.launch(add, Grid { threads: 512, ..grid }, &args) }.unwrap_err().to_string();
        assert!(error.contains("LaunchKernel failed: ") && error.contains("(add of Grid { blocks: [4, 1, 1], threads: 512"), "{error}");

        assert_eq!(kernels.get("add").unwrap().raw, add.raw);
        kernels.get("swap").unwrap();
        let error = kernels.get("multiply").unwrap_err().to_string();
        assert_eq!(error, format!("no file of kernels for {} has multiply", gpu.info().arch));
    });
}

#[test]
fn what_was_compiled_is_kept_until_a_text_changes() {
    on_each(|gpu, emulated| {
        let folder = tempfile::tempdir().unwrap();
        let origins = || load(gpu, &sources(), Some(folder.path()), None).unwrap().1;
        assert_eq!(origins(), [Origin::Compiled; 2]);
        let compilations = emulated.counters().compilations;
        assert_eq!(origins(), [Origin::Kept; 2]);
        assert_eq!(emulated.counters().compilations, compilations);

        let add = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("add-{}-", gpu.info().arch)));
        let add = add.unwrap();
        let whole = fs::read(&add).unwrap();
        fs::write(&add, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(origins(), [Origin::Compiled, Origin::Kept], "cut short");
        assert_eq!(fs::read(&add).unwrap(), whole, "written anew");

        let mut other = sources();
        other.defines.push("OTHER=1".into());
        assert_eq!(load(gpu, &other, Some(folder.path()), None).unwrap().1, [Origin::Compiled; 2], "other definitions");
        assert_eq!(origins(), [Origin::Kept; 2]);

        fs::remove_dir_all(folder.path()).unwrap();
        fs::write(folder.path(), "no folder").unwrap();
        assert_eq!(origins(), [Origin::Compiled; 2], "nowhere to keep it");
        fs::remove_file(folder.path()).unwrap();
    });
}

#[test]
fn prebuilt_binaries_are_taken_where_their_text_is_the_same() {
    on_each(|gpu, emulated| {
        let folder = tempfile::tempdir().unwrap();
        let sources = sources();
        for file in &sources.files {
            let binary = gpu.driver().compile(file.name, file.text, &[("device.cuh", DEVICE)], &[]).unwrap();
            fs::write(folder.path().join(sources.prebuilt_name(*file)), binary).unwrap();
        }
        emulated.reset_counters();
        let (kernels, origins) = load(gpu, &sources, None, Some(folder.path())).unwrap();
        kernels.get("swap").unwrap();
        assert_eq!((origins, emulated.counters().compilations), (vec![Origin::Prebuilt; 2], 0));

        fs::write(folder.path().join(sources.prebuilt_name(sources.files[0])), "for another card").unwrap();
        let (_, origins) = load(gpu, &sources, None, Some(folder.path())).unwrap();
        assert_eq!(origins, [Origin::Compiled, Origin::Prebuilt]);
    });
}

#[test]
fn a_file_that_does_not_compile_is_named() {
    on_each(|gpu, _| {
        let mut wrong = sources();
        wrong.files[1].text = "this is no kernel";
        let error = load(gpu, &wrong, None, None).err().unwrap().to_string();
        assert!(error.starts_with(&format!("swap.cu does not compile for {}: ", gpu.info().arch)), "{error}");
    });
}
