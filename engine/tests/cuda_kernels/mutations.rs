//! Mistakes that are made in the kernels on purpose, each of which a check must find: what shows that the checks can fail.

use half::{bf16, f16};

use crate::{
    checks::{Outcome, adjust, attention, experts, linear, pointwise, sampling, weights::Format},
    emulator::{Library, Mutation, kernel_sources as sources},
};

type Check = fn(&Library) -> Outcome;

const BARRIER: &str = "sync_block();";

/// The checks that execute a file.
fn checks_of(file: &str) -> Vec<Check> {
    fn attention_16(library: &Library) -> Outcome {
        attention::attention::<bf16, bf16>(library, 0..8)
    }
    fn attention_f16(library: &Library) -> Outcome {
        attention::attention::<f16, f16>(library, 8..16)
    }
    fn attention_8(library: &Library) -> Outcome {
        attention::attention::<bf16, u8>(library, 16..20)
    }
    fn products(library: &Library) -> Outcome {
        linear::linear::<f32, f32>(library, &Format::ALL)
    }
    fn mixture(library: &Library) -> Outcome {
        (0..4).try_for_each(|seed| experts::experts::<f32>(library, Format::Q8_0, false, seed))
    }
    fn tiles(library: &Library) -> Outcome {
        linear::tiles::<bf16, bf16>(library, &[Format::Bf16, Format::Q8_0])
    }
    match file {
        "attention.cuh" | "attention_decode.cu" | "attention_prefill.cu" | "rope.cu" | "kv.cuh" => {
            vec![attention_16, attention_8, attention_f16]
        }
        "norm.cu" | "reduce.cuh" => vec![pointwise::norm::<f32>, sampling::tokens, mixture],
        "sample.cu" | "sampling.cuh" | "truncate.cuh" | "logprobs.cu" => vec![sampling::tokens, sampling::likelihoods],
        "adjust.cu" => vec![adjust::adjust],
        "moe_route.cu" | "moe_product.cu" => vec![mixture],
        "weights.cuh" | "few_rows.cuh" | "linear.cu" => vec![products, mixture],
        "tile.cuh" | "linear_tile.cu" => vec![tiles],
        "activation.cu" | "activation.cuh" => vec![pointwise::activation::<f32>],
        _ => panic!("no check is known to execute {file}"),
    }
}

/// What the checks say, unless all are content.
fn found(mutation: Mutation) -> Option<String> {
    let library = Library::mutated(mutation);
    checks_of(mutation.file).into_iter().find_map(|check| check(&library).err())
}

fn assert_found(file: &'static str, find: &'static str, nth: usize, replace: &'static str) -> String {
    let mutation = Mutation { file, find, nth, replace };
    found(mutation).unwrap_or_else(|| panic!("no check finds {mutation:?}"))
}

#[test]
fn a_missing_barrier_is_found() {
    // Keys and values are overwritten while another team still reads them.
    assert!(assert_found("attention_prefill.cu", BARRIER, 1, "").contains("race"));
    // A sum is read before all warps have written their part.
    let error = assert_found("reduce.cuh", BARRIER, 1, "");
    assert!(error.contains("race") || error.contains("nobody has written"), "{error}");
    assert!(assert_found("moe_product.cu", BARRIER, 0, "").contains("nobody has written"));
}

#[test]
fn a_barrier_that_some_threads_miss_is_found() {
    let error = assert_found("reduce.cuh", BARRIER, 0, "if (lane_index() < 5) sync_block();");
    assert!(error.contains("divergence") && error.contains("reduce.cuh"), "{error}");
}

#[test]
fn copies_that_are_not_waited_for_are_found() {
    assert_found("attention_decode.cu", "copy_wait<1>();", 0, "");
    assert_found("attention_prefill.cu", "copy_wait<1>();", 0, "copy_wait<2>();");
}

#[test]
fn masks_that_are_off_by_one_are_found() {
    assert_found("attention_prefill.cu", "seen_to[i] = exists ? position + 1 : 0;", 0, "seen_to[i] = exists ? position : 0;");
    assert_found("attention.cuh", "position - window + 1 : 0", 0, "position - window : 0");
    assert_found("attention.cuh", "position < seen_to[j / 2]", 0, "position <= seen_to[j / 2]");
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

/// Takes every barrier away in turn; takes minutes.
#[test]
#[ignore = "compiles each kernel many times"]
fn every_barrier_is_needed() {
    let mut missed = Vec::new();
    for (file, text) in sources() {
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
