//! Operations that take more than one launch: attention, experts, sampling.

use tokenflow_engine::{
    backend::{AttentionConfig, Experts, QkNorm, RopeTable},
    sampling::{SampledToken, ScoredToken},
    scheduler::SampleRequest,
};

use super::{
    backend::{Emulated, launch},
    memory::{Batch, Buffer, KvCache, Matrix, Vector},
};
use crate::{
    args,
    checks::elements::Element,
    emulator::{Device, Pointer},
};

/// Small, so that short contexts have several.
const SPLIT_POSITIONS: usize = 64;

impl<T: Element> Emulated<T> {
    /// As f32.
    pub(super) fn as_f32(&self, device: &Device, x: &Buffer) -> Pointer<f32> {
        if x.is_stream {
            return x.data.cast();
        }
        let out = device.allocate(x.len());
        let args = args::Stream { x: out, from: x.data, total: x.len() as u64 };
        launch(device, &format!("to_f32_{}", T::NAME), [2, 1, 1], 128, 0, &args);
        out
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn rope(
        &self,
        batch: &Batch,
        qkv: &mut Buffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, Vector>>,
        rope: &RopeTable<Vector>,
        kv: &KvCache,
        layer: usize,
    ) {
        let device = self.device();
        let (tokens, half) = (batch.ragged.num_tokens(), rope.inv_freq.len);
        let key = std::ptr::from_ref(rope).addr();
        let mut known = batch.angles.lock().expect("no launch has panicked");
        let angles = known.iter().find(|(of, _)| *of == key).map(|(_, angles)| *angles).unwrap_or_else(|| {
            let out = device.allocate(tokens * 2 * half);
            let (positions, inv_freq) = (batch.positions, rope.inv_freq.values);
            let args = args::RopeAngles { positions, inv_freq, out, tokens: tokens as u32, half: half as u32, scale: rope.scale };
            launch(&device, "rope_angles", [(tokens * half).div_ceil(128), 1, 1], 128, 0, &args);
            known.push((key, out));
            out
        });
        let args = args::RopeKv {
            qkv: qkv.data,
            angles,
            slots: batch.slots,
            q_norm: norms.as_ref().map_or(Pointer::NULL, |norms| norms.q.values),
            k_norm: norms.as_ref().map_or(Pointer::NULL, |norms| norms.k.values),
            cache: kv.layer(layer).any(),
            kv: kv.shape(),
            num_heads: attention.num_heads as u32,
            half: half as u32,
            eps: norms.as_ref().map_or(0.0, |norms| norms.eps),
        };
        let heads = attention.num_heads + 2 * attention.num_kv_heads;
        let grid = [tokens, heads.div_ceil(256 / device.warp() as usize), 1];
        launch(&device, &format!("rope_kv_{}_bf16", T::NAME), grid, 256, 0, &args);
    }

    pub(super) fn attend(&self, batch: &Batch, qkv: &Buffer, attention: &AttentionConfig, kv: &KvCache, layer: usize, out: &mut Buffer) {
        let device = self.device();
        let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = *attention;
        let (tokens, group) = (batch.ragged.num_tokens(), num_heads / num_kv_heads);
        let dim = [64, 128, 256].into_iter().find(|&dim| head_dim <= dim).expect("supported");
        let context = batch.decode.iter().map(|[_, sequence]| batch.ragged.context_len[*sequence as usize] as usize).max().unwrap_or(1);
        let num_splits = context.div_ceil(SPLIT_POSITIONS);
        let prefill: Vec<[u32; 2]> = batch
            .prefill
            .iter()
            .flat_map(|&sequence| {
                let rows = (batch.ragged.query_start[sequence as usize + 1] - batch.ragged.query_start[sequence as usize]) * group as u32;
                (0..rows.div_ceil(64)).map(move |tile| [sequence, tile])
            })
            .collect();
        let args = args::Attention {
            qkv: qkv.data,
            cache: kv.layer(layer).any(),
            out: out.activations::<T>(&device, tokens, num_heads * head_dim).any(),
            positions: batch.positions,
            query_start: batch.query_start,
            block_tables: batch.block_tables,
            table_start: batch.table_start,
            work: device.upload(batch.decode.as_flattened()),
            partial: device.allocate(batch.decode.len() * num_heads * num_splits * head_dim),
            partial_state: device.allocate(batch.decode.len() * num_heads * num_splits * 2),
            kv: kv.shape(),
            num_heads: num_heads as u32,
            split_positions: SPLIT_POSITIONS as u32,
            num_splits: num_splits as u32,
            scale: attention.scale,
            soft_cap: attention.soft_cap.unwrap_or(0.0),
            window: attention.sliding_window.unwrap_or(0) as u32,
        };
        let shared = |rows: usize| 2 * (rows + 4 * 64) * (dim + 8);
        let name = |kind: &str| format!("attention_{kind}_{}_bf16_{dim}", T::NAME);
        let grid = [batch.decode.len(), num_kv_heads * group.div_ceil(16), num_splits];
        launch(&device, &name("decode"), grid, 128, shared(16), &args);
        if num_splits > 1 {
            launch(&device, &format!("attention_combine_{}", T::NAME), [batch.decode.len(), num_heads, 1], 64, 0, &args);
        }
        let args = args::Attention { work: device.upload(prefill.as_flattened()), ..args };
        launch(&device, &name("prefill"), [prefill.len(), num_kv_heads, 1], 128, shared(64), &args);
    }

    pub(super) fn run_experts(&self, x: &Buffer, logits: &Buffer, experts: &Experts<Matrix<T>>, out: &mut Buffer) {
        let device = self.device();
        let (rows, num_experts) = (x.rows, logits.cols);
        let top_k = experts.routing.top_k.min(num_experts);
        let visits = rows * top_k;
        let (chosen, weights) = (device.allocate::<u32>(visits), device.allocate::<f32>(visits));
        let route = args::Route {
            logits: logits.data,
            experts: chosen,
            weights,
            rows: rows as u32,
            num_experts: num_experts as u32,
            top_k: top_k as u32,
            renormalize: u32::from(experts.routing.renormalize),
        };
        launch(&device, &format!("moe_route_{}", T::NAME), [rows.div_ceil(128 / device.warp() as usize), 1, 1], 128, 0, &route);
        let (sorted, place, expert_start) = (device.allocate(visits), device.allocate(visits), device.allocate(num_experts + 1));
        let group = args::Group { experts: chosen, sorted, place, expert_start, visits: visits as u32, num_experts: num_experts as u32 };
        launch(&device, "moe_group", [num_experts, 1, 1], 64, 0, &group);
        // Weights in f32 have no tensor cores.
        let (suffix, tile_rows, tile_features) = if T::NAME == "f32" { ("", 8, 256 / device.warp() as usize) } else { ("_tile", 64, 64) };
        let num_tiles = visits.div_ceil(tile_rows) + num_experts;
        let tiles = device.allocate(3 * num_tiles);
        let cut =
            args::Tiles { expert_start, tiles, num_experts: num_experts as u32, num_tiles: num_tiles as u32, tile_rows: tile_rows as u32 };
        launch(&device, "moe_tiles", [1, 1, 1], 128, 0, &cut);

        let name = format!("moe_product_{0}_{0}{suffix}", T::NAME);
        let all = |matrices: &[Matrix<T>]| device.upload(&matrices.iter().map(|matrix| matrix.weight).collect::<Vec<_>>());
        let (wide, inner) = (experts.gate_up[0].weight.features as usize, experts.down[0].weight.columns as usize);
        let (gate_up, narrow, each) =
            (device.allocate::<T>(visits * wide), device.allocate::<T>(visits * inner), device.allocate::<T>(visits * x.cols));
        let product = args::Experts { weights: all(&experts.gate_up), x: x.data, sorted, tiles, out: gate_up.any(), top_k: top_k as u32 };
        launch(&device, &name, [wide.div_ceil(tile_features), num_tiles, 1], 128, 0, &product);
        let activation = args::Activation { x: gate_up.any(), out: narrow.any(), rows: visits as u32, cols: inner as u32, cap: 0.0 };
        launch(&device, &format!("gated_silu_{}", T::NAME), [2, 1, 1], 128, 0, &activation);
        let product = args::Experts { weights: all(&experts.down), x: narrow.any(), sorted: Pointer::NULL, out: each.any(), ..product };
        launch(&device, &name, [x.cols.div_ceil(tile_features), num_tiles, 1], 128, 0, &product);
        let out = out.activations::<T>(&device, rows, x.cols).any();
        let sum = args::ExpertSum { x: each.any(), experts: chosen, weights, place, out, cols: x.cols as u32, top_k: top_k as u32 };
        launch(&device, &format!("moe_sum_{}", T::NAME), [rows, 1, 1], 64, 0, &sum);
    }

    pub(super) fn choose(&self, logits: &Buffer, requests: &[&SampleRequest]) -> Vec<SampledToken> {
        let device = self.device();
        let (values, rows, vocabulary) = (self.as_f32(&device, logits), logits.rows, logits.cols);
        assert!(requests.iter().all(|r| r.params.temperature == 0.0 && r.params.adjustments.is_none()), "greedy requests only");
        let params: Vec<_> =
            requests.iter().map(|r| args::SampleParams { temperature: r.params.temperature, top_p: 1.0, ..Default::default() }).collect();
        let out = device.allocate(rows);
        let args = args::Sample {
            logits: values,
            params: device.upload(&params),
            values: Pointer::NULL,
            ids: Pointer::NULL,
            out,
            vocabulary: vocabulary as u32,
        };
        launch(&device, "sample", [rows, 1, 1], 128, 0, &args);
        let tokens = device.download(out, rows);
        drop(device);
        let targets: Vec<_> = tokens.iter().zip(requests).map(|(token, r)| (*token, r.params.logprobs.unwrap_or(0))).collect();
        self.rate(logits, &targets).into_iter().map(|scored| scored.token).collect()
    }

    /// How likely each row makes a token, and the likeliest.
    pub(super) fn rate(&self, logits: &Buffer, targets: &[(u32, u32)]) -> Vec<ScoredToken> {
        let device = self.device();
        let (values, rows) = (self.as_f32(&device, logits), logits.rows);
        let (tokens, tops): (Vec<u32>, Vec<u32>) = targets.iter().copied().unzip();
        let max_top = tops.iter().copied().max().unwrap_or(0) as usize;
        let (logprobs, ranks) = (device.allocate(rows), device.allocate(rows));
        let (top_ids, top_logprobs) = (device.allocate(rows * max_top), device.allocate(rows * max_top));
        let args = args::Logprobs {
            logits: values,
            tokens: device.upload(&tokens),
            num_top: device.upload(&tops),
            logprobs,
            ranks,
            top_ids,
            top_logprobs,
            vocabulary: logits.cols as u32,
            max_top: max_top as u32,
        };
        launch(&device, "logprobs", [rows, 1, 1], 128, 0, &args);
        let (logprobs, ranks) = (device.download(logprobs, rows), device.download(ranks, rows));
        let (ids, values) = (device.download(top_ids, rows * max_top), device.download(top_logprobs, rows * max_top));
        let row = |i: usize| {
            let top = (0..tops[i] as usize).map(|k| (ids[i * max_top + k], values[i * max_top + k])).collect();
            let token = SampledToken { token: tokens[i], logprob: Some(logprobs[i]), top };
            ScoredToken { token, rank: ranks[i] as usize }
        };
        (0..rows).map(row).collect()
    }
}
