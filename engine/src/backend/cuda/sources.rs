//! The kernels' sources, inside the binary, and which file a kernel is in.

pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

macro_rules! sources {
    ($($file:literal)*) => {
        &[$(Source { name: $file, text: include_str!(concat!("kernels/", $file)) }),*]
    };
}

macro_rules! headers {
    ($($file:literal)*) => {
        &[$(($file, include_str!(concat!("kernels/", $file)))),*]
    };
}

pub(super) const FILES: &[Source] = sources![
    "activation.cu" "adjust.cu" "attention_decode.cu" "attention_exact.cu" "attention_prefill.cu" "columns.cu" "copy_blocks.cu" "embed.cu"
    "gather.cu" "linear.cu" "linear_tile.cu" "logprobs.cu" "moe_product.cu" "moe_product_tile.cu" "moe_route.cu" "norm.cu" "rope.cu"
    "sample.cu" "stream.cu" "widen.cu"
];

pub(super) const HEADERS: &[(&str, &str)] = headers![
    "activation.cuh" "async.cuh" "attention.cuh" "attention_args.cuh" "device.cuh" "few_rows.cuh" "kv.cuh" "linear.cuh" "mma.cuh" "moe.cuh"
    "reduce.cuh" "sampling.cuh" "tile.cuh" "truncate.cuh" "types.cuh" "weights.cuh"
];

/// The file of the kernel whose name begins with the first of `parts`; where there are two, the last part tells them apart.
pub(super) fn file_of(parts: &[&str]) -> Option<&'static Source> {
    let tiled = parts.last() == Some(&"tile");
    let name = match *parts.first()? {
        "gated_silu" | "gated_gelu" | "gated_gelu_tanh" | "silu" | "gelu" | "gelu_tanh" | "soft_cap" => "activation.cu",
        "adjust_logits" => "adjust.cu",
        "attention_decode" | "attention_combine" => "attention_decode.cu",
        "attention_exact" => "attention_exact.cu",
        "attention_prefill" => "attention_prefill.cu",
        "pick_columns" => "columns.cu",
        "copy_blocks" => "copy_blocks.cu",
        "embed" => "embed.cu",
        "gather_rows" => "gather.cu",
        "linear" if tiled => "linear_tile.cu",
        "linear" => "linear.cu",
        "logprobs" => "logprobs.cu",
        "moe_product" if tiled => "moe_product_tile.cu",
        "moe_product" | "moe_sum" => "moe_product.cu",
        "moe_route" | "moe_group" | "moe_tiles" => "moe_route.cu",
        "rms_norm" | "rms_norm_own" | "layer_norm" | "layer_norm_own" => "norm.cu",
        "rope_angles" | "rope_kv" => "rope.cu",
        "sample" => "sample.cu",
        "add" | "to_f32" => "stream.cu",
        "widen" => "widen.cu",
        _ => return None,
    };
    FILES.iter().find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_file_is_inside_the_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda/kernels");
        let there: BTreeSet<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let embedded = FILES.iter().map(|file| file.name).chain(HEADERS.iter().map(|(name, _)| *name));
        assert_eq!(embedded.map(str::to_owned).collect::<BTreeSet<_>>(), there);
    }
}
