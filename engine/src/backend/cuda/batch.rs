//! A step's indices on the card: one array of all that kernels look up, in one copy. Batches of one token a sequence are filled up with rows
//! that mean nothing to one of a few sizes, so that graphs recorded for these sizes fit.

use std::ops::Range;

use parking_lot::Mutex;
use tokenflow_gpu::{DevicePtr, GpuError};

use super::{CudaBackend, config::CudaConfig, upload::Packed};
use crate::backend::RaggedBatch;

/// Marks a token of the batch as one that the step before has chosen, in the row that the rest says.
const FROM_PREVIOUS: u32 = 1 << 31;
/// Query rows of a block of prefill attention.
const PREFILL_ROWS: u32 = 64;

/// What a recorded pass is valid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) rows: usize,
    /// Whether any context is split among blocks.
    pub(super) is_split: bool,
}

/// A [`RaggedBatch`] on the card. One lives at a time: the next takes its place.
pub struct CudaBatch {
    /// Tokens, those included that fill up.
    pub(super) rows: usize,
    pub(super) num_logits: usize,
    pub(super) tokens: DevicePtr,
    pub(super) positions: DevicePtr,
    pub(super) slots: DevicePtr,
    pub(super) logits_rows: DevicePtr,
    pub(super) query_start: DevicePtr,
    pub(super) table_start: DevicePtr,
    pub(super) block_tables: DevicePtr,
    /// (token, its sequence), of tokens that are attended to one at a time.
    pub(super) singles: Singles,
    /// (sequence, tile of query rows) of the others.
    pub(super) tiles: Mutex<Tiles>,
    /// What the numbers of rows of the sequences in `tiles` are.
    prefills: Vec<[u32; 2]>,
    /// Set where a graph may run it.
    pub(super) form: Option<Form>,
    /// The group of `singles` whose splits are listed on the card.
    pub(super) items: Mutex<Option<usize>>,
    /// Frequencies whose angles this step has.
    pub(super) angles: Mutex<Vec<DevicePtr>>,
}

#[derive(Clone, Default)]
pub(super) struct Singles {
    pub(super) count: usize,
    pub(super) work: Option<DevicePtr>,
    /// Rows whose splits there is room for at a time; mostly one group of all.
    pub(super) groups: Vec<Range<usize>>,
    /// Whether any has several splits.
    pub(super) is_split: bool,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Tiles {
    /// Query heads of a KV head, which tiles depend on.
    pub(super) group: usize,
    pub(super) count: usize,
    pub(super) work: Option<DevicePtr>,
}

/// Bytes of the indices of the largest step, with every sequence as long as the model allows.
pub(super) fn index_bytes(config: &CudaConfig) -> usize {
    let CudaConfig { max_tokens, max_seqs, max_model_len, block_size, .. } = *config;
    let words = 8 * max_tokens + 4 * max_seqs + max_seqs * (max_model_len.div_ceil(block_size) + 1);
    4 * words + 256
}

/// Rows that `rows` are filled up to: 1, 2, 4 and multiples of 8, or as many as there may be.
fn filled_up(rows: usize, most: usize) -> usize {
    match rows {
        0..=2 => rows,
        3..=4 => 4.min(most),
        _ => rows.next_multiple_of(8).min(most),
    }
}

/// Most rows that are ever added.
pub(super) const MOST_ADDED: usize = 7;

fn tiles_of(prefills: &[[u32; 2]], group: usize) -> Vec<[u32; 2]> {
    let of = |&[sequence, rows]: &[u32; 2]| (0..(rows * group as u32).div_ceil(PREFILL_ROWS)).map(move |tile| [sequence, tile]);
    prefills.iter().flat_map(of).collect()
}

impl CudaBackend {
    /// Forms of batches that graphs are recorded for: sizes, with contexts that are split and with such that are not.
    pub fn num_graphs(&self) -> usize {
        let config = &self.device.config;
        let sizes = (1..=config.max_seqs).filter(|&rows| filled_up(rows, config.max_seqs) == rows).count();
        sizes * (1 + usize::from(config.max_model_len > config.split_positions))
    }

    pub(super) fn upload_batch(&self, mut ragged: RaggedBatch) -> Result<CudaBatch, GpuError> {
        let config = &self.device.config;
        for &[token, row] in &ragged.from_previous {
            ragged.tokens[token as usize] = FROM_PREVIOUS | row;
        }
        let num_real = [ragged.num_tokens() as u32];
        let spare = self.device.spare_block.load(std::sync::atomic::Ordering::Relaxed);
        let fits = !config.enforce_eager && spare > 0 && is_decode(&ragged) && ragged.num_tokens() <= config.max_seqs;
        if fits {
            fill_up(&mut ragged, config, spare as u32);
        }
        let rows = ragged.num_tokens();
        let sequences = || ragged.query_start.windows(2).enumerate().map(|(i, rows)| (i as u32, rows[0]..rows[1]));
        let (mut singles, mut prefills, mut splits) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, tokens) in sequences() {
            if config.is_exact() || tokens.len() == 1 {
                splits.extend(tokens.clone().map(|token| ragged.positions[token as usize] as usize / config.split_positions + 1));
                singles.extend(tokens.map(|token| [token, sequence]));
            } else {
                prefills.push([sequence, tokens.len() as u32]);
            }
        }
        let groups = groups_of(&splits, config.most_items());
        let is_split = splits.iter().any(|&splits| splits > 1);
        let form = (fits && groups.len() <= 1).then_some(Form { rows, is_split });
        let group = *self.group.lock();
        let tiles = tiles_of(&prefills, group);

        let mut packed = Packed::default();
        // First, where `CudaBackend::num_real` says.
        packed.add(&num_real);
        let at = [
            packed.add(&ragged.tokens),
            packed.add(&ragged.positions),
            packed.add(&ragged.slots),
            packed.add(&ragged.logits_rows),
            packed.add(&ragged.query_start),
            packed.add(&ragged.table_start),
            packed.add(singles.as_flattened()),
            packed.add(tiles.as_flattened()),
            packed.add(&ragged.block_tables),
        ];
        let start = packed.send(&mut self.indices.lock())?;
        let [tokens, positions, slots, logits_rows, query_start, table_start, work, tile_work, block_tables] = at.map(|at| start.add(at));
        Ok(CudaBatch {
            rows,
            num_logits: ragged.logits_rows.len(),
            tokens,
            positions,
            slots,
            logits_rows,
            query_start,
            table_start,
            block_tables,
            singles: Singles { count: singles.len(), work: Some(work), groups, is_split },
            tiles: Mutex::new(Tiles { group, count: tiles.len(), work: Some(tile_work) }),
            prefills,
            form,
            items: Mutex::default(),
            angles: Mutex::default(),
        })
    }

    /// Where the number of rows is that the last batch has without those that fill it up; null before there is one.
    pub(super) fn num_real(&self) -> DevicePtr {
        self.indices.lock().last()
    }

    /// The batch's tiles for attention with `group` query heads to a KV head. Only the first step of a model has to make them here.
    pub(super) fn tiles(&self, batch: &CudaBatch, group: usize) -> Result<Tiles, GpuError> {
        let mut tiles = batch.tiles.lock();
        if tiles.group != group && !batch.prefills.is_empty() {
            let work = tiles_of(&batch.prefills, group);
            let mut packed = Packed::default();
            packed.add(work.as_flattened());
            let start = packed.send(&mut self.tile_work.lock())?;
            *tiles = Tiles { group, count: work.len(), work: Some(start) };
            *self.group.lock() = group;
        }
        Ok(*tiles)
    }
}

/// Neighbouring rows with up to `most` splits together; no row has more.
fn groups_of(splits: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut together = 0;
    for (row, &own) in splits.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if together + own <= most => {
                group.end = row + 1;
                together += own;
            }
            _ => {
                groups.push(row..row + 1);
                together = own;
            }
        }
    }
    groups
}

/// Whether every sequence has one token, and all want logits.
fn is_decode(ragged: &RaggedBatch) -> bool {
    let rows = ragged.num_tokens();
    rows > 0 && ragged.context_len.len() == rows && ragged.logits_rows.iter().copied().eq(0..rows as u32)
}

/// Adds rows of sequences of one token, each with its key and value in the cache's spare block.
fn fill_up(ragged: &mut RaggedBatch, config: &CudaConfig, spare: u32) {
    let rows = ragged.num_tokens();
    for (i, row) in (rows..filled_up(rows, config.max_seqs)).enumerate() {
        let row = row as u32;
        ragged.tokens.push(0);
        ragged.positions.push(0);
        ragged.slots.push(spare * config.block_size as u32 + i as u32);
        ragged.query_start.push(row + 1);
        ragged.context_len.push(1);
        ragged.block_tables.push(spare);
        ragged.table_start.push(ragged.block_tables.len() as u32);
        ragged.logits_rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_their_splits() {
        assert_eq!(groups_of(&[1, 2, 1, 4, 3, 1], 4), [0..3, 3..4, 4..6]);
        assert_eq!(groups_of(&[1; 9], 9), vec![0..9; 1]);
        assert!(groups_of(&[], 4).is_empty());
    }

    #[test]
    fn batches_are_filled_up_by_seven_rows_at_most() {
        for most in [1, 3, 8, 60, 256] {
            for rows in 1..=most {
                let filled = filled_up(rows, most);
                assert!(filled >= rows && filled <= most && filled - rows <= MOST_ADDED, "{rows} of {most}: {filled}");
                assert_eq!(filled_up(filled, most), filled);
            }
        }
    }

    #[test]
    fn added_rows_are_sequences_of_their_own_in_the_spare_block() {
        let mut ragged = RaggedBatch {
            tokens: vec![7, 8, 9],
            positions: vec![20, 3, 0],
            slots: vec![36, 3, 64],
            query_start: vec![0, 1, 2, 3],
            context_len: vec![21, 4, 1],
            block_tables: vec![1, 2, 0, 4],
            table_start: vec![0, 2, 3, 4],
            logits_rows: vec![0, 1, 2],
            from_previous: vec![],
        };
        assert!(is_decode(&ragged));
        fill_up(&mut ragged, &CudaConfig::default(), 50);
        assert_eq!((ragged.num_tokens(), ragged.slots[3]), (4, 800));
        assert_eq!((&ragged.query_start[3..], &ragged.table_start[4..], &ragged.block_tables[4..]), (&[3, 4][..], &[5][..], &[50][..]));
        assert!(is_decode(&ragged));
        ragged.logits_rows.pop();
        assert!(!is_decode(&ragged));
    }
}
