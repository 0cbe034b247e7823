//! Logits to tokens on the card. The tokens of a step stay there for the next one to embed; the host gets them, and log-probabilities where
//! asked for, through pinned memory when it reads.

use std::sync::Arc;

use tokenflow_gpu::{DevicePtr, Event, GpuError};

use super::{
    CudaBackend,
    args::{self, AdjustParams, SampleParams},
    buffer::Buffer,
    device::Device,
    memory::{Memory, Pinned},
    upload::{Packed, Upload},
};
use crate::{
    sampling::{LogitAdjustments, SampledToken, ScoredToken, TokenMask},
    scheduler::SampleRequest,
};

/// Of logits; what the sampler's sums have room for: integers of up to 2^45 each in 64 bits.
const MAX_VOCABULARY: usize = 512 * 1024 - 1;
/// Rows that are truncated at a time, so that the copies of their logits have a bound.
const ROWS_AT_ONCE: usize = 256;

/// What choosing tokens keeps from step to step.
pub(super) struct Sampler {
    device: Arc<Device>,
    /// What requests ask for.
    requests: Upload,
    /// The tokens that the last step has chosen.
    tokens: Memory,
    /// Adjusted logits, counts of tokens (zero between launches), and what truncation leaves: values and ids.
    adjusted: Memory,
    counts: Memory,
    values: Memory,
    ids: Memory,
    /// Log-probabilities: see `Details`.
    details: Memory,
    /// Places for results that nobody waits for.
    free: Vec<Place>,
}

/// Pinned memory that a step's results are copied to.
struct Place {
    pinned: Pinned,
    arrived: Event,
    /// That `arrived` was recorded with; 0 before.
    number: u64,
}

/// Where log-probabilities of `rows` rows lie, in units of 4 bytes: own ones, ranks, ids of the likeliest, their log-probabilities.
#[derive(Clone, Copy)]
struct Details {
    rows: usize,
    max_top: usize,
}

impl Details {
    fn ranks(self) -> usize {
        self.rows
    }

    fn top_ids(self) -> usize {
        2 * self.rows
    }

    fn top_logprobs(self) -> usize {
        (2 + self.max_top) * self.rows
    }

    fn len(self) -> usize {
        (2 + 2 * self.max_top) * self.rows
    }
}

/// Tokens on their way to the host.
pub struct CudaSampled {
    place: Option<Place>,
    rows: usize,
    /// Per row: the number of likeliest tokens asked for.
    tops: Vec<Option<u32>>,
    details: Option<Details>,
    /// Per row that has one: a grammar's mask.
    masks: Vec<(usize, Arc<TokenMask>)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The copy may still be under way.
        let _ = self.pinned.device.wait_for(&self.arrived, self.number);
    }
}

impl Sampler {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        let none = || Memory::none(device);
        Ok(Self {
            requests: Upload::new(device, 128 * device.config.logits_rows())?,
            tokens: device.allocate(4 * device.config.logits_rows())?,
            adjusted: none(),
            counts: none(),
            values: none(),
            ids: none(),
            details: none(),
            free: Vec::new(),
            device: device.clone(),
        })
    }

    /// Where the tokens of the last step are.
    pub(super) fn tokens(&self) -> DevicePtr {
        self.tokens.start()
    }

    fn place(&mut self, bytes: usize) -> Result<Place, GpuError> {
        if let Some(at) = self.free.iter().position(|place| place.pinned.memory.bytes() >= bytes) {
            return Ok(self.free.swap_remove(at));
        }
        // A smaller one is of no use any more.
        self.free.pop();
        let bytes = bytes.max(4 * self.device.config.logits_rows()).next_power_of_two();
        let pinned = Pinned { memory: self.device.gpu.allocate_pinned(bytes)?, device: self.device.clone() };
        Ok(Place { pinned, arrived: self.device.gpu.event()?, number: 0 })
    }

    /// Has `arrived` follow copies to `place` of the tokens, and of details behind them.
    fn send(&self, mut place: Place, rows: usize, details: Option<Details>) -> Result<Place, GpuError> {
        let stream = &self.device.stream;
        let to = place.pinned.memory.as_ptr();
        // SAFETY: all of it is in bounds and lives until the event is reached; nobody reads before.
        unsafe {
            if rows > 0 {
                stream.copy_to_host(to, self.tokens.start(), 4 * rows)?;
            }
            if let Some(details) = details {
                stream.copy_to_host(to.add(4 * rows), self.details.start(), 4 * details.len())?;
            }
        }
        place.number = self.device.record(&place.arrived)?;
        Ok(place)
    }

    /// Log-probabilities of `tokens` and of the likeliest.
    fn rate(
        &mut self,
        logits: DevicePtr,
        vocabulary: usize,
        tokens: DevicePtr,
        num_top: DevicePtr,
        details: Details,
    ) -> Result<(), GpuError> {
        let start = self.details.reserve(4 * details.len().max(2 * self.device.config.logits_rows()))?;
        let args = args::Logprobs {
            logits,
            tokens,
            num_top,
            logprobs: start,
            ranks: start.add(4 * details.ranks()),
            top_ids: start.add(4 * details.top_ids()),
            top_logprobs: start.add(4 * details.top_logprobs()),
            vocabulary: vocabulary as u32,
            max_top: details.max_top as u32,
        };
        self.device.launch(&["logprobs"], [details.rows, 1, 1], self.threads(vocabulary), 0, &args)
    }

    /// Threads for a row of logits.
    fn threads(&self, vocabulary: usize) -> u32 {
        self.device.threads(vocabulary.div_ceil(8), 1024).max(2 * self.device.warp() as u32)
    }

    fn choose(&mut self, logits: &Buffer, requests: &[&SampleRequest]) -> Result<CudaSampled, GpuError> {
        let (shape, rows) = (logits.shape(), requests.len());
        let vocabulary = shape.cols;
        assert!(shape.rows >= rows && shape.is_stream, "rows of logits");
        if vocabulary > MAX_VOCABULARY {
            let reason = format!("a vocabulary of {vocabulary} tokens is larger than the {MAX_VOCABULARY} that are supported");
            return Err(GpuError::Call { call: "sampling", reason });
        }
        let params: Vec<SampleParams> = requests.iter().map(|request| sample_params(request)).collect();
        let mut lists = Vec::new();
        let is_adjusted = requests.iter().any(|request| request.params.adjustments.is_some() || request.mask.is_some());
        let adjustments: Vec<AdjustParams> =
            if is_adjusted { requests.iter().map(|request| adjust_params(request, vocabulary, &mut lists)).collect() } else { Vec::new() };
        let tops: Vec<Option<u32>> = requests.iter().map(|request| request.params.logprobs.map(|top| top.min(vocabulary as u32))).collect();
        let max_top = tops.iter().copied().max().flatten();
        let num_top: Vec<u32> = if max_top.is_some() { tops.iter().map(|top| top.unwrap_or(0)).collect() } else { Vec::new() };

        let mut packed = Packed::default();
        let at = [packed.add(&params), packed.add(&adjustments), packed.add(&num_top), packed.add(&lists)];
        let start = packed.send(&mut self.requests)?;
        let [params_at, adjustments_at, num_top_at, lists_at] = at.map(|at| start.add(at));
        if 4 * rows > self.tokens.bytes() {
            self.tokens.reserve(4 * rows.next_power_of_two())?;
        }
        let mut chosen_from = logits.data();
        if is_adjusted {
            let args = args::Adjust {
                logits: logits.data(),
                out: self.adjusted.reserve(4 * vocabulary * shape.room.max(rows))?,
                params: adjustments_at,
                lists: lists_at,
                counts: self.counts(4 * vocabulary * shape.room.max(rows))?,
                vocabulary: vocabulary as u32,
                unused: 0,
            };
            chosen_from = args.out;
            self.device.launch(&["adjust_logits"], [rows, 1, 1], self.device.threads(vocabulary.div_ceil(8), 256), 0, &args)?;
        }
        let truncates = requests.iter().any(|request| request.params.min_p > 0.0 || request.params.top_k > 1 || request.params.top_p < 1.0);
        let at_once = if truncates { ROWS_AT_ONCE } else { rows.max(1) };
        if truncates {
            let bytes = 4 * vocabulary * ROWS_AT_ONCE.min(shape.room.max(rows));
            self.values.reserve(bytes)?;
            self.ids.reserve(bytes)?;
        }
        for first in (0..rows).step_by(at_once) {
            let args = args::Sample {
                logits: chosen_from.add(4 * vocabulary * first),
                params: params_at.add(size_of::<SampleParams>() * first),
                values: self.values.start(),
                ids: self.ids.start(),
                out: self.tokens.start().add(4 * first),
                vocabulary: vocabulary as u32,
                unused: 0,
            };
            self.device.launch(&["sample"], [at_once.min(rows - first), 1, 1], self.threads(vocabulary), 0, &args)?;
        }
        let details = max_top.map(|max_top| Details { rows, max_top: max_top as usize });
        if let Some(details) = details {
            self.rate(logits.data(), vocabulary, self.tokens.start(), num_top_at, details)?;
        }
        let place = self.place(4 * (rows + details.map_or(0, Details::len)))?;
        let place = Some(self.send(place, rows, details)?);
        let masks = requests.iter().enumerate().filter_map(|(row, request)| Some((row, request.mask.clone()?))).collect();
        Ok(CudaSampled { place, rows, tops, details, masks })
    }

    /// Zeros: kernels leave them as they find them.
    fn counts(&mut self, bytes: usize) -> Result<DevicePtr, GpuError> {
        if bytes > self.counts.bytes() {
            let start = self.counts.reserve(bytes)?;
            // SAFETY: just allocated with this length.
            unsafe { self.device.stream.fill(start, 0, bytes)? };
        }
        Ok(self.counts.start())
    }

    /// Waits for what is in `place`, as words, and lets `read` see it.
    fn arrive<R>(&mut self, place: Place, words: usize, read: impl FnOnce(&[u32]) -> R) -> Result<R, GpuError> {
        self.device.wait_for(&place.arrived, place.number)?;
        // SAFETY: the copies to there have been waited for.
        let result = read(bytemuck::cast_slice(unsafe { place.pinned.memory.read(0..4 * words) }));
        self.free.push(place);
        Ok(result)
    }
}

impl CudaBackend {
    pub(super) fn choose(&self, logits: &Buffer, requests: &[&SampleRequest]) -> Result<CudaSampled, GpuError> {
        self.device.outcome()?;
        self.sampler.lock().choose(logits, requests)
    }

    pub(super) fn read_chosen(&self, sampled: CudaSampled) -> Result<Vec<SampledToken>, GpuError> {
        let CudaSampled { place, rows, tops, details, masks } = sampled;
        let Some(place) = place else { return Ok(Vec::new()) };
        let mut tokens = self.sampler.lock().arrive(place, rows + details.map_or(0, Details::len), |words| {
            let (tokens, rest) = words.split_at(rows);
            let token = |(row, &token): (usize, &u32)| match (tops[row], details) {
                (Some(top), Some(details)) => details.token(rest, row, token, top as usize),
                _ => SampledToken { token, logprob: None, top: Vec::new() },
            };
            tokens.iter().enumerate().map(token).collect::<Vec<_>>()
        })?;
        for (row, mask) in masks {
            // Only where every logit that the mask leaves is broken.
            if !mask.allows(tokens[row].token) {
                tokens[row].token = mask.first().unwrap_or(tokens[row].token);
            }
        }
        Ok(tokens)
    }

    pub(super) fn rate(&self, logits: &Buffer, targets: &[(u32, u32)]) -> Result<Vec<ScoredToken>, GpuError> {
        self.device.outcome()?;
        let shape = logits.shape();
        assert!(shape.rows >= targets.len() && shape.is_stream, "rows of logits");
        let sampler = &mut *self.sampler.lock();
        let (tokens, tops): (Vec<u32>, Vec<u32>) = targets.iter().map(|&(token, top)| (token, top.min(shape.cols as u32))).unzip();
        let details = Details { rows: targets.len(), max_top: tops.iter().copied().max().unwrap_or(0) as usize };
        let mut packed = Packed::default();
        let (tokens_at, tops_at) = (packed.add(&tokens), packed.add(&tops));
        let start = packed.send(&mut sampler.requests)?;
        sampler.rate(logits.data(), shape.cols, start.add(tokens_at), start.add(tops_at), details)?;
        let place = sampler.place(4 * details.len())?;
        let place = sampler.send(place, 0, Some(details))?;
        sampler.arrive(place, details.len(), |words| {
            let scored = |row: usize| ScoredToken {
                token: details.token(words, row, tokens[row], tops[row] as usize),
                rank: words[details.ranks() + row] as usize,
            };
            (0..targets.len()).map(scored).collect()
        })
    }

    /// Rows as f32.
    pub(super) fn read_values(&self, x: &Buffer) -> Result<Vec<Vec<f32>>, GpuError> {
        self.device.outcome()?;
        let shape = x.shape();
        let mut from = x.data();
        if shape.element != tokenflow_gpu::Element::F32 {
            let wide = self.scratch.lock().part("values as f32", 4 * shape.cols * shape.room.max(shape.rows))?;
            let args = args::Stream { x: wide, from, total: shape.len() as u64 };
            let blocks = self.device.stride_blocks(shape.len());
            self.device.launch(&["to_f32", self.device.tag()], [blocks, 1, 1], self.device.threads(shape.len(), 256), 0, &args)?;
            from = wide;
        }
        let sampler = &mut *self.sampler.lock();
        let mut place = sampler.place(4 * shape.len())?;
        // SAFETY: both are as long, and live until the event is reached; nobody reads before.
        unsafe { self.device.stream.copy_to_host(place.pinned.memory.as_ptr(), from, 4 * shape.len())? };
        place.number = self.device.record(&place.arrived)?;
        sampler.arrive(place, shape.len(), |words| {
            words.chunks_exact(shape.cols.max(1)).map(|row| row.iter().map(|word| f32::from_bits(*word)).collect()).collect()
        })
    }
}

impl Details {
    /// A row of log-probabilities, for `token` and the `count` likeliest.
    fn token(self, words: &[u32], row: usize, token: u32, count: usize) -> SampledToken {
        let (ids, logprobs) = (self.top_ids() + row * self.max_top, self.top_logprobs() + row * self.max_top);
        let top = (0..count).map(|i| (words[ids + i], f32::from_bits(words[logprobs + i]))).collect();
        SampledToken { token, logprob: Some(f32::from_bits(words[row])), top }
    }
}

fn sample_params(request: &SampleRequest) -> SampleParams {
    let params = &request.params;
    SampleParams {
        seed: params.seed,
        position: request.output_position as u64,
        temperature: params.temperature,
        top_p: params.top_p,
        // As the CPU's sampler rounds it.
        min_p_offset: params.min_p.ln() / (1.0 / params.temperature),
        has_min_p: u32::from(params.min_p > 0.0),
        top_k: params.top_k,
        unused: 0,
    }
}

/// Ranges in `lists` of all that one row's request says.
fn adjust_params(request: &SampleRequest, vocabulary: usize, lists: &mut Vec<u32>) -> AdjustParams {
    let mut list = |values: &mut dyn Iterator<Item = u32>| {
        let start = lists.len() as u32;
        lists.extend(values);
        [start, lists.len() as u32]
    };
    let default = LogitAdjustments::default();
    let adjustments = request.params.adjustments.as_deref().unwrap_or(&default);
    let history = request.history.as_deref().unwrap_or_default();
    let (prompt, output) = history.split_at(history.len().saturating_sub(request.output_position));
    let mask = request.mask.as_deref();
    let forbidden: &[u32] = if request.output_position < adjustments.min_tokens { &adjustments.stop_token_ids } else { &[] };
    AdjustParams {
        has_mask: u32::from(mask.is_some()),
        mask: list(&mut mask.map_or(&[][..], TokenMask::words).iter().copied().take(vocabulary.div_ceil(32))),
        has_allowed: u32::from(adjustments.allowed_token_ids.is_some()),
        allowed: list(&mut adjustments.allowed_token_ids.iter().flatten().copied()),
        forbidden: list(&mut forbidden.iter().copied()),
        bad_words: list(&mut adjustments.bad_words.iter().flat_map(|word| std::iter::once(word.len() as u32).chain(word.iter().copied()))),
        biases: list(&mut adjustments.logit_bias.iter().flat_map(|(token, bias)| [*token, bias.to_bits()])),
        prompt: list(&mut prompt.iter().copied()),
        output: list(&mut output.iter().copied()),
        repetition_penalty: adjustments.repetition_penalty,
        frequency_penalty: adjustments.frequency_penalty,
        presence_penalty: adjustments.presence_penalty,
    }
}
