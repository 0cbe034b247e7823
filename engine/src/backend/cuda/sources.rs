//! The kernels' sources, inside the binary.

use tokenflow_gpu::kernels::Source;

macro_rules! sources {
    ($($file:literal)*) => {
        &[$(Source { name: $file, text: include_str!(concat!("kernels/", $file)) }),*]
    };
}

/// Files to compile; the slowest first.
pub(super) const FILES: &[Source<'static>] = sources![
    "attention_prefill.cu" "linear_tile.cu" "attention_decode.cu" "linear.cu" "moe_product_tile.cu" "moe_product.cu" "sample.cu" "rope.cu"
    "attention_exact.cu" "moe_route.cu" "activation.cu" "adjust.cu" "bias.cu" "columns.cu" "copy_blocks.cu" "embed.cu" "gather.cu" "logprobs.cu"
    "norm.cu" "stream.cu" "widen.cu"
];

pub(super) const HEADERS: &[Source<'static>] = sources![
    "activation.cuh" "async.cuh" "attention.cuh" "attention_args.cuh" "device.cuh" "few_rows.cuh" "kv.cuh" "linear.cuh" "mma.cuh" "moe.cuh"
    "reduce.cuh" "rows.cuh" "sampling.cuh" "select.cuh" "softmax.cuh" "tile.cuh" "truncate.cuh" "types.cuh" "weights.cuh"
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_file_is_inside_the_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda/kernels");
        let there: BTreeSet<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let embedded = FILES.iter().chain(HEADERS).map(|file| file.name);
        assert_eq!(embedded.map(str::to_owned).collect::<BTreeSet<_>>(), there);
    }
}
