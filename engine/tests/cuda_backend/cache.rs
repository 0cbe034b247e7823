//! What happens to keys and values between steps: prefixes that are shared, blocks that are copied, preempted and offloaded sequences, in every
//! type that the cache can have. Nothing of it may change what comes out.

use tokenflow_engine::{
    backend::cuda::{CudaConfig, KvType},
    executor::Executor,
    kv::{BlockId, HostBlockId},
    scheduler::{BlockCopy, BlockTransfer, StepPlan},
};

use crate::{
    device::{bf16, distance, exact, exactly_on_cpu, generate, on_gpu, plan, prompt, share},
    weights::Model,
};

fn transfer(device: u32, host: u32) -> BlockTransfer {
    BlockTransfer { device: BlockId(device), host: HostBlockId(host) }
}

/// In f32, and in bf16 where the same kernels serve every number of rows.
#[test]
fn recomputing_and_sharing_a_prefix_change_no_bit() {
    let model = Model::new("mistral");
    for config in [exact(), CudaConfig { batch_invariant: true, ..bf16() }] {
        let executor = &mut on_gpu(&model.folder(), config);
        let mut all = prompt(3, 13);
        let sampled = generate(executor, &mut all, 0, &[5, 2, 7], 8);
        // Preempted after four tokens: prompt and output are computed again, in one step, elsewhere.
        let mut again = all[..13 + 4].to_vec();
        assert_eq!(generate(executor, &mut again, 0, &[9, 11, 10], 4), sampled[4..]);
        // The first block of another sequence that begins alike.
        let mut shared = all[..13].to_vec();
        assert_eq!(generate(executor, &mut shared, 8, &[5, 14, 15], 8), sampled);
    }
}

#[test]
fn blocks_are_copied_and_come_back_from_the_host() {
    let model = Model::new("mistral");
    for kv in [KvType::F32, KvType::BF16, KvType::F16, KvType::Fp8] {
        let executor = &mut on_gpu(&model.folder(), CudaConfig { kv, ..exact() });
        let mut all = prompt(4, 12);
        let expected = generate(executor, &mut all, 0, &[1, 2, 3], 6);
        let mut all = prompt(4, 12);
        assert_eq!(generate(executor, &mut all, 0, &[1, 2, 3], 3), expected[..3]);

        // Copies one after the other, the second of what the first wrote.
        let (mut forked, copy) = (all.clone(), |from, to| BlockCopy { from: BlockId(from), to: BlockId(to) });
        executor.execute(&StepPlan { copies: vec![copy(2, 8), copy(8, 9), copy(1, 2)], ..StepPlan::default() }).unwrap();
        assert_eq!(generate(executor, &mut forked, 14, &[2, 9, 10], 3), expected[3..], "{kv:?}, copied");

        // To the host, then other work in the blocks, then back to others.
        let offload = vec![transfer(1, 3), transfer(8, 0)];
        executor.execute(&StepPlan { offload, ..StepPlan::default() }).unwrap();
        generate(executor, &mut prompt(5, 14), 0, &[1, 8], 1);
        let params = crate::device::with_logprobs();
        let onload = vec![transfer(15, 3), transfer(14, 0)];
        let step = StepPlan { onload, ..plan(vec![share(1, &all, 14, &[15, 14], Some((&params, 3)))]) };
        let output = executor.execute(&step).unwrap();
        assert_eq!(output.sampled[0].1, expected[3], "{kv:?}, from the host");
    }
}

#[test]
fn a_cache_in_eight_bits_is_as_near_as_the_cpus() {
    let model = Model::new("mistral");
    let folder = &model.folder();
    let run = |executor: &mut dyn Executor| generate(executor, &mut prompt(6, 18), 0, &[1, 2, 3], 3);
    let theirs = {
        let config = tokenflow_engine::backend::cpu::CpuConfig { kv_dtype: KvType::Fp8, ..crate::driver::EXACT };
        run(&mut crate::device::on_cpu(folder, config))
    };
    let ours = run(&mut on_gpu(folder, CudaConfig { kv: KvType::Fp8, ..exact() }));
    assert!(distance(&ours, &theirs) < 0.05, "{}", distance(&ours, &theirs));
    let exact = run(&mut exactly_on_cpu(folder));
    assert!(distance(&ours, &exact) > 0.0, "eight bits are less than 32");
}
