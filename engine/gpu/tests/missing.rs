//! What is said where something is missing or too old: a driver of a few lines stands in for NVIDIA's, in a process of its own for each case.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tokenflow_gpu::{DeviceChoice, Gpu};

/// Which device the process that a test starts opens, to compile something there.
const DEVICE: &str = "TOKENFLOW_TEST_DEVICE";
/// Instead of compiling, it asks for products.
const PRODUCTS: &str = "TOKENFLOW_TEST_PRODUCTS";

/// Functions that are looked up but not called here.
const UNUSED: &str = "
    cuDevicePrimaryCtxRelease_v2 cuMemGetInfo_v2 cuMemAlloc_v2 cuMemFree_v2 cuMemHostAlloc cuMemFreeHost cuMemcpyHtoDAsync_v2
    cuMemcpyDtoHAsync_v2 cuMemcpyDtoDAsync_v2 cuMemsetD8Async cuStreamCreate cuStreamDestroy_v2 cuStreamSynchronize cuStreamWaitEvent
    cuStreamBeginCapture_v2 cuStreamEndCapture cuEventCreate cuEventDestroy_v2 cuEventRecord cuEventSynchronize cuEventQuery
    cuEventElapsedTime cuGraphInstantiateWithFlags cuGraphLaunch cuGraphDestroy cuGraphExecDestroy cuModuleLoadData cuModuleUnload
    cuModuleGetFunction cuFuncGetAttribute cuFuncSetAttribute cuLaunchKernel cuDevicePrimaryCtxSetFlags_v2 cuCtxSetCurrent";

const DRIVER: &str = r#"
#include <cstring>
#include <cstdlib>
static int number(const char* name) { const char* text = getenv(name); return text ? atoi(text) : 0; }
extern "C" {
int cuInit(unsigned) { return number("FAKE_INIT"); }
int cuDriverGetVersion(int* version) { *version = number("FAKE_VERSION"); return 0; }
int cuGetErrorName(int, const char** text) { *text = "CUDA_ERROR_NAME"; return 0; }
int cuGetErrorString(int, const char** text) { *text = "what it means"; return 0; }
int cuDeviceGetCount(int* count) { *count = number("FAKE_COUNT"); return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int) { strncpy(name, "Fake Card", length); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 1 << 30; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? number("FAKE_CAPABILITY") / 10 : attribute == 76 ? number("FAKE_CAPABILITY") % 10 : 32;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { *context = nullptr; return number("FAKE_RETAIN"); }
}
"#;

/// A folder with a driver that lacks `without`.
fn driver(without: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let unused = UNUSED.split_whitespace().filter(|name| *name != without);
    let text = unused.fold(DRIVER.to_owned(), |text, name| text + &format!("extern \"C\" int {name}() {{ return 0; }}\n"));
    let source = folder.path().join("driver.cpp");
    fs::write(&source, text).unwrap();
    let library = folder.path().join("libcuda.so.1");
    let compiled = Command::new("c++").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().expect("c++ is there");
    assert!(compiled.success());
    folder
}

/// What a process says that opens `device`, with the variables given and none of the user's.
fn open(device: &str, folder: Option<&Path>, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "opener", "--nocapture"]).env(DEVICE, device);
    for variable in ["TOKENFLOW_CUDA_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        command.env_remove(variable);
    }
    if let Some(folder) = folder {
        command.env("TOKENFLOW_CUDA_PATH", folder);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text.lines().find_map(|line| line.split_once("said: "));
    said.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}

/// Runs in a process of its own; see [`open`].
#[test]
fn opener() {
    let Ok(device) = env::var(DEVICE) else { return };
    let gpu = device.parse::<DeviceChoice>().and_then(Gpu::open);
    let done = gpu.and_then(|gpu| {
        if env::var_os(PRODUCTS).is_some() {
            return Ok(format!("products: {}", gpu.driver().has_products()));
        }
        gpu.driver().compile("a.cu", "", &[], &[]).map(|_| "compiled".into())
    });
    println!("\nsaid: {}", done.unwrap_or_else(|error| error.to_string()));
}

fn is_installed(library: &str) -> bool {
    // SAFETY: the driver's initialiser, if there is one.
    unsafe { libloading::Library::new(library) }.is_ok()
}

#[test]
fn a_missing_driver_is_looked_for_by_name_in_named_places() {
    if is_installed("libcuda.so.1") {
        return println!("skipped: NVIDIA's driver is installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let said = open("cuda", Some(folder.path()), &[]);
    assert!(said.starts_with("no driver of NVIDIA: libcuda.so.1 or libcuda.so not found in the loader's path (LD_LIBRARY_PATH"), "{said}");
    assert!(said.contains(&folder.path().display().to_string()), "{said}");
    let said = open("cuda", None, &[]);
    assert!(said.contains("TOKENFLOW_CUDA_PATH, which is not set"), "{said}");
    if !is_installed("libamdhip64.so.7") && !is_installed("libamdhip64.so.6") {
        let said = open("auto", None, &[]);
        assert!(said.starts_with("no driver of NVIDIA: ") && said.contains("libamdhip64.so"), "{said}");
    }
}

#[test]
fn each_thing_that_is_missing_has_its_sentence() {
    let folder = driver("");
    let fit = [("FAKE_VERSION", "12080"), ("FAKE_COUNT", "2"), ("FAKE_CAPABILITY", "90")];
    let with = |device: &str, changed: &[(&str, &str)]| open(device, Some(folder.path()), &[&fit, changed].concat());
    let path: PathBuf = folder.path().join("libcuda.so.1");
    let path = path.display();
    for (device, changed, expected) in [
        (
            "cuda",
            ("FAKE_VERSION", "11080"),
            format!("the driver {path} speaks CUDA 11.8, and CUDA 12.0 is needed: a driver of version 525.60 or newer"),
        ),
        ("cuda", ("FAKE_INIT", "999"), format!("the driver {path} does not start: cuInit failed: CUDA_ERROR_NAME: what it means")),
        ("cuda", ("FAKE_INIT", "100"), format!("the driver {path} finds no card (CUDA_VISIBLE_DEVICES is not set)")),
        ("cuda", ("FAKE_COUNT", "0"), format!("the driver {path} finds no card (CUDA_VISIBLE_DEVICES is not set)")),
        (
            "cuda:2",
            ("CUDA_VISIBLE_DEVICES", "4,5"),
            "there is no cuda:2: 2 cards are visible, numbered from 0 (CUDA_VISIBLE_DEVICES is \"4,5\")".into(),
        ),
        ("cuda:1", ("FAKE_CAPABILITY", "75"), "Fake Card (cuda:1) has compute capability 7.5, and 8.0 is needed (Ampere or newer)".into()),
        (
            "cuda:1",
            ("FAKE_RETAIN", "2"),
            "Fake Card (cuda:1) cannot be used: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_NAME: what it means".into(),
        ),
    ] {
        assert_eq!(with(device, &[changed]), expected);
    }
    if !is_installed("libcublasLt.so.12") && !is_installed("libcublasLt.so.13") && !Path::new("/usr/local/cuda/lib64").exists() {
        assert_eq!(with("cuda:1", &[(PRODUCTS, "1")]), "products: false");
    }
    if is_installed("libnvrtc.so.12") || is_installed("libnvrtc.so.13") || Path::new("/usr/local/cuda/lib64").exists() {
        return println!("skipped: NVRTC is installed");
    }
    let said = with("cuda:1", &[]);
    let expected = "kernels cannot be compiled: libnvrtc.so.12, libnvrtc.so or libnvrtc.so.13 not found in the loader's path";
    assert!(said.starts_with(expected) && said.contains("nvidia-cuda-nvrtc"), "{said}");
    let said = with("cuda:1", &[("FAKE_VERSION", "13000"), ("CUDA_HOME", "/opt/no-cuda")]);
    assert!(said.contains("libnvrtc.so.13, libnvrtc.so.12 or") && said.contains("/opt/no-cuda/lib64"), "{said}");
}

#[test]
fn a_driver_that_lacks_a_function_is_too_old() {
    let folder = driver("cuGraphInstantiateWithFlags");
    let said = open("cuda", Some(folder.path()), &[]);
    let path = folder.path().join("libcuda.so.1");
    assert_eq!(
        said,
        format!(
            "{} is too old: it lacks cuGraphInstantiateWithFlags; a driver of version 525.60 (CUDA 12.0) or newer is needed",
            path.display()
        )
    );
}
