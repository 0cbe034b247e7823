//! The ragged batch of one step: which rows belong to which sequence, and where their keys and values go.
//! Derived from the plan alone, so that every executor and every rank computes the same.

use crate::scheduler::StepPlan;

/// The index arithmetic of one step, derived from the plan alone. All vectors are over the tokens of the batch unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaggedBatch {
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    /// KV slot that each token writes: block * block_size + offset.
    pub slots: Vec<u32>,
    /// Per sequence, plus one: the rows of sequence `i` are `query_start[i]..query_start[i + 1]`.
    pub query_start: Vec<u32>,
    /// Per sequence: number of positions with KV after this step's writes.
    pub context_len: Vec<u32>,
    /// Block tables of all sequences, one after the other.
    pub block_tables: Vec<u32>,
    /// Per sequence, plus one: the table of sequence `i` is `block_tables[table_start[i]..table_start[i + 1]]`.
    pub table_start: Vec<u32>,
    /// Rows whose logits are wanted, in the plan's order.
    pub logits_rows: Vec<u32>,
    /// (index into `tokens`, row): the token there is what the previous step samples in that row of its logits, which the host may not know yet.
    pub from_previous: Vec<[u32; 2]>,
}

impl RaggedBatch {
    pub fn new(plan: &StepPlan, block_size: usize) -> Self {
        let mut batch = Self { query_start: vec![0], table_start: vec![0], ..Self::default() };
        for sequence in &plan.sequences {
            for (i, &token) in sequence.tokens.iter().enumerate() {
                let position = sequence.start + i;
                let block = sequence.block_table[position / block_size].0;
                batch.tokens.push(token);
                batch.positions.push(position as u32);
                batch.slots.push(block * block_size as u32 + (position % block_size) as u32);
            }
            if let Some(row) = sequence.pending {
                batch.from_previous.push([batch.tokens.len() as u32 - 1, row as u32]);
            }
            let end = sequence.start + sequence.tokens.len();
            let used_blocks = end.div_ceil(block_size);
            batch.block_tables.extend(sequence.block_table[..used_blocks].iter().map(|b| b.0));
            batch.table_start.push(batch.block_tables.len() as u32);
            batch.query_start.push(batch.tokens.len() as u32);
            batch.context_len.push(end as u32);
            if sequence.sample.is_some() {
                let end = batch.tokens.len() as u32;
                batch.logits_rows.extend(end - 1 - sequence.num_draft_tokens as u32..end);
            }
        }
        batch
    }

    /// Puts the tokens in place that the previous step sampled, row by row, where the host knows them by now.
    pub fn fill_from_previous(&mut self, sampled: &[u32]) {
        for [at, row] in self.from_previous.drain(..) {
            self.tokens[at as usize] = sampled[row as usize];
        }
    }

    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kv::BlockId,
        scheduler::{ScheduledSequence, SequenceId},
    };

    #[test]
    fn tokens_that_are_not_known_yet_are_looked_up_in_the_step_before() {
        let sequence = |tokens: &[u32], start, pending| ScheduledSequence {
            id: SequenceId(0),
            tokens: tokens.to_vec(),
            start,
            block_table: vec![BlockId(3)],
            sample: None,
            num_draft_tokens: 0,
            pending,
        };
        let sequences = vec![sequence(&[5, 6], 0, None), sequence(&[0], 9, Some(1)), sequence(&[7, 0], 4, Some(0))];
        let mut batch = RaggedBatch::new(&StepPlan { sequences, ..StepPlan::default() }, 16);
        assert_eq!(batch.from_previous, [[2, 1], [4, 0]]);
        batch.fill_from_previous(&[90, 91]);
        assert_eq!((&batch.tokens[..], batch.from_previous.len()), (&[5, 6, 91, 7, 90][..], 0));
    }
}
