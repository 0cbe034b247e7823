//! The kernel: some query rows against all keys and values they see.

use std::{marker::PhantomData, ops::Range};

use super::{
    super::{
        isa::{Kernel, LANES, Simd, math::exp},
        kv::{GROUP, HeadView},
        product::{Columns, Kind, Out, Pair, Piece, ROW_PAIRS, SEGMENTS, Then, product},
        scratch::Own,
    },
    Call, Item,
    softmax::{mask_and_max, softmax_weights},
};

/// Positions whose weights are computed before values are summed.
const TILE: usize = GROUPS * GROUP;
const GROUPS: usize = SEGMENTS;
/// Bytes in a cache line: what one pair of bf16 columns of a vector takes, so that asking for one line per pair keeps the pace of reading.
const LINE: usize = 64;
/// Stands for minus infinity in a running maximum, without making NaN of a difference.
const LOWEST: f32 = f32::MIN;

pub(super) struct Attend<'a, K> {
    pub call: Call<'a>,
    pub item: &'a Item<'a>,
    pub own: &'a mut Own,
    pub kind: PhantomData<K>,
}

impl<K: Kind> Kernel for Attend<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if const { K::NEEDS_DOT_BF16 && !S::DOT_BF16 } {
            unreachable!("a product that this instruction set does not have");
        }
        let (attention, tokens) = (self.call.attention, &self.item.tokens);
        let mut rows = Rows::<K>::new(self.call, self.item, self.own);
        let position = |t: usize| self.call.batch.positions[tokens.start + t] as usize;
        let first_seen = |position| attention.first_seen(position);
        let (first, end) = (first_seen(position(0)), position(tokens.len() - 1) + 1);

        for start in (first / TILE * TILE..end).step_by(TILE) {
            // Tokens before the tile see nothing of it.
            let token0 = (0..tokens.len()).take_while(|&t| position(t) < start).count();
            let tile = rows.tile(s, token0, start.max(first / GROUP * GROUP), end.min(start + TILE), first, end);
            // SAFETY: the tile is of these rows.
            unsafe {
                rows.score(s, &tile);
                rows.weigh(s, &tile, |t| first_seen(position(t))..position(t) + 1);
                rows.add_values(s, &tile, start + TILE..end);
            }
        }
        rows.finish();
    }
}

/// The rows of an item, token by token, for each the heads of the group; and the state of their softmax.
struct Rows<'a, K: Kind> {
    call: Call<'a>,
    item: &'a Item<'a>,
    view: HeadView<'a>,
    /// Query heads that share the KV head.
    group: usize,
    /// `head_dim`, and the same as it is stored.
    dim: usize,
    padded: usize,
    count: usize,
    /// `[row][ROW_PAIRS]`
    queries: &'a mut [K::A],
    /// `[row of the tile][ROW_PAIRS]`
    weights: &'a mut [K::A],
    /// `[row of the tile][TILE]`
    scores: &'a mut [f32],
    /// Weighted sums of values so far, `[row][padded]`.
    sums: &'a mut [f32],
    /// Greatest score so far; all weights so far are relative to it.
    maxima: &'a mut [f32],
    /// Sum of the weights so far.
    totals: &'a mut [f32],
    /// What the tile multiplies the state so far by, and what it adds to the totals.
    factors: &'a mut [f32],
    tile_totals: &'a mut [f32],
    /// Groups that cannot be read in place.
    copies: &'a mut [u8],
}

/// Some positions, and the rows that see any of them.
struct Tile {
    /// The first row; all later ones belong to the tile.
    row0: usize,
    start: usize,
    /// Keys and values of 16 positions each.
    groups: [[*const u8; 2]; GROUPS],
    num_groups: usize,
}

impl<'a, K: Kind> Rows<'a, K> {
    #[inline(always)]
    fn new(call: Call<'a>, item: &'a Item<'a>, own: &'a mut Own) -> Self {
        let shape = call.kv.shape();
        let (dim, padded) = (call.attention.head_dim, shape.padded_dim());
        let view = HeadView::new(call.kv, call.layer, item.head, item.table);
        let group = call.attention.num_heads / call.attention.num_kv_heads;
        let count = item.tokens.len() * group;
        let queries: &mut [K::A] = own.packed.slice(count * ROW_PAIRS);
        for (t, token) in item.tokens.clone().enumerate() {
            for g in 0..group {
                let query = &call.qkv.row(token)[(item.head * group + g) * dim..][..dim];
                K::A::pack(query, &mut queries[(t * group + g) * ROW_PAIRS..][..ROW_PAIRS]);
            }
        }
        let sums = own.sums.slice(count * padded);
        sums.fill(0.0);
        let states = count.next_multiple_of(LANES);
        let (maxima, rest) = own.factors.slice(4 * states).split_at_mut(states);
        let (totals, rest) = rest.split_at_mut(states);
        let (factors, tile_totals) = rest.split_at_mut(states);
        maxima.fill(LOWEST);
        totals.fill(0.0);
        Self {
            call,
            item,
            copies: bytemuck::cast_slice_mut::<u32, u8>(own.copies.slice(GROUPS * view.copy_bytes() / 4)),
            view,
            group,
            dim,
            padded,
            count,
            queries,
            weights: own.weights.slice(count * ROW_PAIRS),
            scores: own.scores.slice(count * TILE),
            sums,
            maxima,
            totals,
            factors,
            tile_totals,
        }
    }

    /// The positions `start..stop`, seen by tokens from `token0` on; of the sequence, `first..end` are seen by any row.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, token0: usize, start: usize, stop: usize, first: usize, end: usize) -> Tile {
        let mut tile = Tile { row0: token0 * self.group, start, groups: [[std::ptr::null(); 2]; GROUPS], num_groups: 0 };
        let copies = self.copies.chunks_exact_mut(self.view.copy_bytes());
        for (position, copy) in (start..stop).step_by(GROUP).zip(copies) {
            tile.groups[tile.num_groups] = self.view.group(s, position, first, end, copy);
            tile.num_groups += 1;
        }
        tile
    }

    /// Products of the queries with the tile's keys; asks for the values meanwhile.
    ///
    /// # Safety
    /// `tile` must be the latest of [`Rows::tile`].
    #[inline(always)]
    unsafe fn score<S: Simd>(&mut self, s: S, tile: &Tile) {
        let columns = Columns {
            vectors: tile.num_groups,
            segments: 1,
            pairs: self.dim.div_ceil(2),
            stride: self.call.kv.shape().as_read().key_stride(),
            ahead_stride: LINE,
        };
        let piece = |group: usize, _| {
            let [start, ahead] = tile.groups[group];
            Piece { start, ahead }
        };
        // SAFETY: queries and scores have these rows, and the groups' keys hold all pairs of dimensions.
        unsafe {
            let queries = self.queries.as_ptr().add(tile.row0 * ROW_PAIRS);
            let out = Out { start: self.scores.as_mut_ptr(), stride: TILE, then: Then::Store, bias: std::ptr::null() };
            product::<S, K>(s, queries, self.count - tile.row0, columns, piece, out);
        }
    }

    /// Turns scores into weights, and the state so far into what it is relative to the new maxima. `visible` tells which positions a
    /// token sees.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, s: S, tile: &Tile, visible: impl Fn(usize) -> Range<usize>) {
        let columns = tile.num_groups * GROUP;
        self.factors.fill(0.0);
        self.tile_totals.fill(0.0);
        for row in tile.row0..self.count {
            let scores = &mut self.scores[(row - tile.row0) * TILE..][..columns];
            let weights = &mut self.weights[(row - tile.row0) * ROW_PAIRS..][..columns / 2];
            let before = self.maxima[row];
            let max = mask_and_max(s, scores, tile.start, visible(row / self.group), self.call.attention, before);
            self.maxima[row] = max;
            self.factors[row] = before - max;
            self.tile_totals[row] = softmax_weights(s, scores, max, weights);
        }
        let states = self.factors.as_chunks_mut::<LANES>().0.iter_mut().zip(self.totals.as_chunks_mut::<LANES>().0);
        for ((factors, totals), tile_totals) in states.zip(self.tile_totals.as_chunks::<LANES>().0) {
            // SAFETY: sixteen values each.
            unsafe {
                let factor = exp(s, s.load(factors.as_ptr()));
                s.store(factor, factors.as_mut_ptr());
                s.store(s.fma(s.load(totals.as_ptr()), factor, s.load(tile_totals.as_ptr())), totals.as_mut_ptr());
            }
        }
    }

    /// Rescales the sums and adds the products of the weights with the tile's values; asks for the keys of the `next` positions
    /// meanwhile.
    ///
    /// # Safety
    /// As [`Rows::score`].
    #[inline(always)]
    unsafe fn add_values<S: Simd>(&mut self, s: S, tile: &Tile, next: Range<usize>) {
        let shape = self.call.kv.shape().as_read();
        let columns = Columns {
            vectors: self.padded / LANES,
            segments: tile.num_groups,
            pairs: GROUP / 2,
            stride: shape.value_stride(),
            ahead_stride: LINE,
        };
        let mut next_keys = tile.groups.map(|group| group[1]);
        for (keys, position) in next_keys.iter_mut().zip(next.step_by(GROUP)) {
            *keys = self.view.keys_hint(position);
        }
        let piece = |vector: usize, group: usize| Piece {
            start: tile.groups[group][1].wrapping_add(vector * LANES * 4),
            ahead: next_keys[group].wrapping_add(vector * (GROUP / 2) * LINE),
        };
        // SAFETY: weights, sums and factors have these rows, and the groups' values hold all dimensions.
        unsafe {
            let out = Out {
                start: self.sums.as_mut_ptr().add(tile.row0 * self.padded),
                stride: self.padded,
                then: Then::Rescale { factors: self.factors.as_ptr().add(tile.row0) },
                bias: std::ptr::null(),
            };
            product::<S, K>(s, self.weights.as_ptr(), self.count - tile.row0, columns, piece, out);
        }
    }

    /// Writes the means of the values to the output.
    #[inline(always)]
    fn finish(self) {
        for row in 0..self.count {
            let (token, head) = (self.item.tokens.start + row / self.group, self.item.head * self.group + row % self.group);
            let at = (token * self.call.attention.num_heads + head) * self.dim;
            // SAFETY: these heads of these tokens are no other thread's.
            let out = unsafe { self.call.out.part(at, self.dim) };
            let scale = 1.0 / self.totals[row];
            for (out, sum) in out.iter_mut().zip(&self.sums[row * self.padded..]) {
                *out = sum * scale;
            }
        }
    }
}
