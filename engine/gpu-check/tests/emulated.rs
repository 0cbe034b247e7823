//! The kernels' checks on emulated cards: NVIDIA's with warps of 32 lanes and AMD's with warps of 64. And mistakes that are made in the kernels on
//! purpose, each of which a check must find: what shows that the checks can fail.

use std::{fs, process::Command};

use tokenflow_engine::backend::cuda;
use tokenflow_gpu::{DeviceChoice, Gpu};
use tokenflow_gpu_check::{kernels, open, report::Finding};
use tokenflow_gpu_emulator::{Options, install, kernel_sources, library_folder};

const BARRIER: &str = "sync_block();";

/// Runs all checks on an emulated card and says how far off they were.
fn all_agree(options: &Options, choice: DeviceChoice, warp: u32) {
    let emulated = install(options);
    let card = open::with_kernels(Gpu::open(choice).unwrap(), &cuda::all_sources(), None).unwrap();
    assert_eq!(card.warp(), warp);
    let mut failed = Vec::new();
    for check in kernels::all() {
        match (check.run)(&card) {
            Ok(()) => match card.take_worst() {
                Some(worst) => println!("{}: {:.1e} of {:.1e}", check.name, worst.error, worst.tolerance),
                None => println!("{}: equal", check.name),
            },
            Err(error) => {
                failed.push(format!("{}: {error:#}; {}", check.name, emulated.last_error()));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(emulated.last_error(), "");
}

#[test]
fn kernels_agree_with_the_cpu_at_warps_of_32() {
    all_agree(&Options::nvidia(), DeviceChoice::Cuda(None), 32);
}

#[test]
fn kernels_agree_with_the_cpu_at_warps_of_64() {
    all_agree(&Options::amd(), DeviceChoice::Rocm(None), 64);
}

/// A mistake: the `nth` of the places where `find` stands in a file becomes `replace`.
#[derive(Clone, Copy, Debug)]
struct Mutation {
    file: &'static str,
    find: &'static str,
    nth: usize,
    replace: &'static str,
}

/// Checks that execute a file, and the kernels that they take.
fn checks_of(file: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match file {
        "attention.cuh" | "attention_args.cuh" | "softmax.cuh" | "attention_decode.cu" | "attention_prefill.cu" | "rope.cu" | "kv.cuh" => (
            &["attention bf16 over bf16", "attention bf16 over fp8", "attention f16 over f16"],
            &["attention_decode.cu", "attention_prefill.cu", "rope.cu"],
        ),
        "attention_exact.cu" => (&["attention f32 over f32"], &["attention_exact.cu", "rope.cu"]),
        "norm.cu" | "reduce.cuh" => (&["norms f32"], &["norm.cu"]),
        "sample.cu" | "sampling.cuh" | "truncate.cuh" | "logprobs.cu" => {
            (&["sampled tokens", "likelihoods"], &["sample.cu", "logprobs.cu"])
        }
        "adjust.cu" => (&["adjusted logits"], &["adjust.cu"]),
        "moe_route.cu" | "moe_product.cu" => (&["experts f32"], &["moe_route.cu", "moe_product.cu", "activation.cu"]),
        "weights.cuh" | "few_rows.cuh" | "linear.cu" => (&["products f32"], &["linear.cu"]),
        "tile.cuh" | "linear_tile.cu" => (&["products bf16 in tiles"], &["linear_tile.cu"]),
        "activation.cu" | "activation.cuh" => (&["activations f32"], &["activation.cu"]),
        _ => panic!("no check is known to execute {file}"),
    }
}

/// What a check says of the mutated kernels, unless all are content. Each runs in a process of its own, whose card has no other kernels.
fn found(Mutation { file, find, nth, replace }: Mutation) -> Option<String> {
    let (checks, kernels) = checks_of(file);
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("kernels");
    fs::create_dir(&folder).unwrap();
    let mut sources = kernel_sources();
    let text = sources.get_mut(file).unwrap();
    let (at, _) = text.match_indices(find).nth(nth).unwrap_or_else(|| panic!("{file} has no {find:?} number {nth}"));
    text.replace_range(at..at + find.len(), replace);
    sources.retain(|name, _| name.ends_with(".cuh") || kernels.contains(&name.as_str()));
    sources.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());

    let options = Options { kernels: Some(folder.clone()), ..Options::nvidia() };
    let libraries = library_folder(&options);
    checks.iter().find_map(|check| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenflow-gpu-check"));
        command.args(["section", "kernels", "--device", "cuda", "--seconds", "600", "--tiny", "--check", check]);
        let (variable, value) = options.environment();
        command.arg("--sources").arg(&folder).arg("--scratch").arg(scratch.path()).env("LD_LIBRARY_PATH", &libraries).env(variable, value);
        let output = command.env("TOKENFLOW_CACHE", scratch.path().join("cache")).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let findings: Vec<Finding> = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(!findings.is_empty() || !output.status.success(), "no check is called {check}: {stderr}");
        // A kernel that is not there, or does not compile, finds no mistake.
        assert!(!stderr.contains("no file of kernels") && !stderr.contains("does not compile"), "{check}: {stderr}");
        let failed = findings.iter().any(Finding::failed) || !output.status.success();
        failed.then(|| stderr.into_owned())
    })
}

fn assert_found(file: &'static str, find: &'static str, nth: usize, replace: &'static str) -> String {
    let mutation = Mutation { file, find, nth, replace };
    found(mutation).unwrap_or_else(|| panic!("no check finds {mutation:?}"))
}

#[test]
fn a_missing_barrier_is_found() {
    // Keys and values are overwritten while another team still reads them.
    let error = assert_found("attention_prefill.cu", BARRIER, 0, "");
    assert!(error.contains("race") || error.contains("nobody has written"), "{error}");
    // A sum is read before all warps have written their part.
    let error = assert_found("reduce.cuh", BARRIER, 1, "");
    assert!(error.contains("race") || error.contains("nobody has written"), "{error}");
    let error = assert_found("moe_product.cu", BARRIER, 0, "");
    assert!(error.contains("nobody has written"), "{error}");
}

#[test]
fn a_barrier_that_some_threads_miss_is_found() {
    let error = assert_found("reduce.cuh", BARRIER, 0, "if (lane_index() < 5) sync_block();");
    assert!(error.contains("divergence") && error.contains("reduce.cuh"), "{error}");
}

#[test]
fn copies_that_are_not_waited_for_are_found() {
    assert_found("attention_decode.cu", "copy_wait<0>();", 0, "");
    assert_found("attention_prefill.cu", "copy_wait<0>();", 0, "copy_wait<1>();");
}

#[test]
fn masks_that_are_off_by_one_are_found() {
    assert_found("attention_prefill.cu", "seen_to[i] = exists ? position + 1 : 0;", 0, "seen_to[i] = exists ? position : 0;");
    assert_found("attention_args.cuh", "position - window + 1 : 0", 0, "position - window : 0");
    assert_found("attention_prefill.cu", "position < seen_to[i]", 1, "position <= seen_to[i]");
}

#[test]
fn indices_that_are_off_by_one_are_found() {
    assert_found(
        "attention_decode.cu",
        "least(position + 1, (split + 1) * args.split_positions)",
        0,
        "least(position + 2, (split + 1) * args.split_positions)",
    );
    assert_found("weights.cuh", "values[2 * i + 1] = float(bytes.at[i] >> 4)", 0, "values[2 * i + 1] = float(bytes.at[i] & 15)");
    let error = assert_found("few_rows.cuh", "least(f, num_features - 1)", 0, "f");
    assert!(error.contains("out of bounds"), "{error}");
    assert_found("moe_route.cu", "below += args.experts[i] < expert", 0, "below += args.experts[i] <= expert");
}

#[test]
fn a_tile_that_is_multiplied_before_it_is_there_is_found() {
    assert_found("tile.cuh", "copy_wait<TILE_STAGES - 2>();", 0, "copy_wait<TILE_STAGES - 1>();");
}

/// Takes every barrier away in turn; takes minutes.
#[test]
#[ignore = "compiles each kernel many times"]
fn every_barrier_is_needed() {
    let mut missed = Vec::new();
    for (file, text) in kernel_sources() {
        if file == "device.cuh" {
            continue;
        }
        for nth in 0..text.matches(BARRIER).count() {
            let file: &'static str = file.clone().leak();
            match found(Mutation { file, find: BARRIER, nth, replace: "" }) {
                Some(error) => println!("{file} {nth}: {error}"),
                None => missed.push(format!("{file} {nth}")),
            }
        }
    }
    assert!(missed.is_empty(), "nothing is wrong without these barriers: {missed:?}");
}
