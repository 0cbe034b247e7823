//! Models whose weights are stored: engine/fixtures/make.py.

use tokenflow_engine::backend::cpu::{ComputeType, CpuConfig, Isa, KvType};

use crate::driver::{Cut, DEMO, EXACT, ISAS, assert_bf16, assert_exact, assert_stages_compose, drive, executor, folder, reference};

const FIXTURES: [&str; 3] = ["qwen3", "llama", "llama-linear"];

#[test]
fn greedy_ids_and_logprobs_are_the_references() {
    for name in FIXTURES {
        let cases = reference(&folder(name)).cases;
        assert!(cases.iter().any(|c| c.prompt_ids.len() > 100));
        for block_size in [4, 16] {
            for (chunk, together) in [(1024, false), (1024, true), (16, false), (7, true)] {
                assert!(assert_exact(&folder(name), &cases, EXACT, Cut { block_size, chunk, together }));
            }
        }
    }
}

#[test]
fn every_instruction_set_agrees() {
    let mut run = Vec::new();
    for isa in ISAS {
        for name in FIXTURES {
            let config = CpuConfig { isa: Some(isa), ..EXACT };
            if assert_exact(&folder(name), &reference(&folder(name)).cases, config, Cut { block_size: 16, chunk: 33, together: true }) {
                run.push((isa, name));
            }
        }
    }
    assert!(FIXTURES.iter().all(|name| run.contains(&(Isa::Portable, name))), "{run:?}");
    println!("instruction sets: {run:?}");
}

#[test]
fn the_demo_model_says_what_the_reference_says() {
    let cases = reference(&folder(DEMO)).cases;
    assert!(cases.len() >= 2);
    assert!(assert_exact(&folder(DEMO), &cases, EXACT, Cut { block_size: 16, chunk: 1024, together: false }));
    assert!(assert_exact(&folder(DEMO), &cases, EXACT, Cut { block_size: 4, chunk: 9, together: true }));
}

#[test]
fn pipeline_stages_compose() {
    FIXTURES.iter().for_each(|name| assert_stages_compose(&folder(name)));
}

/// Not only the ids: every log-probability is the same to the last bit, in either arithmetic.
#[test]
fn how_the_work_is_cut_changes_nothing() {
    for (compute, kv_dtype) in [(ComputeType::F32, KvType::F32), (ComputeType::BF16, KvType::BF16)] {
        for name in FIXTURES {
            let cases = reference(&folder(name)).cases;
            let run = |block_size, chunk, together| {
                let mut executor = executor(&folder(name), CpuConfig { compute, kv_dtype, ..EXACT }, block_size).unwrap();
                drive(&mut executor, &cases, Cut { block_size, chunk, together }, false)
            };
            let whole = run(16, 1024, false);
            for (block_size, chunk, together) in
                [(16, 1024, true), (16, 16, true), (16, 7, false), (4, 1024, false), (4, 7, true), (32, 50, true)]
            {
                assert_eq!(
                    run(block_size, chunk, together),
                    whole,
                    "{name}, {compute:?}, blocks of {block_size}, chunks of {chunk}, {together}"
                );
            }
        }
    }
}

/// bf16 has 8 bits of mantissa, and wide random models are the hard case: the measure is what transformers loses by it.
#[test]
fn bf16_is_no_further_off_than_the_references_own() {
    for isa in [None, Some(Isa::Portable)] {
        FIXTURES.iter().for_each(|name| assert_bf16(&folder(name), isa));
    }
}
