// Products of many rows with weights in any encoding, on tensor cores: 64 rows by 64 features for each block, 64 columns at a time.
// Two more times 64 columns are under way while some are multiplied. Weights are widened to 16 bits on their way to shared memory.
// Sums go along the columns in order, whatever else is in the tile.
#pragma once

#include "async.cuh"
#include "mma.cuh"
#include "weights.cuh"

constexpr u32 TILE_THREADS = 128;
constexpr u32 TILE_ROWS = 64;
constexpr u32 TILE_FEATURES = 64;
constexpr u32 TILE_COLUMNS = 64;
constexpr u32 TILE_STAGES = 3;
/// Elements of 16 bytes, pieces of a row, and rows that a thread has a piece of, the same in each.
constexpr u32 PIECE = 8;
constexpr u32 PIECES = TILE_COLUMNS / PIECE;
constexpr u32 THREAD_ROWS = TILE_ROWS * PIECES / TILE_THREADS;

template <class T>
struct alignas(16) TileShared {
    T rows[TILE_STAGES][TILE_ROWS * TILE_COLUMNS];
    T weights[TILE_STAGES][TILE_FEATURES * TILE_COLUMNS];
};

/// Where an element is in a stage: pieces of neighbouring rows change places, so that matrices are loaded without bank conflicts.
DEVICE u32 tile_at(u32 row, u32 column) { return row * TILE_COLUMNS + ((column / PIECE) ^ (row % PIECES)) * PIECE + column % PIECE; }

/// Copies the same columns of rows of 16-bit values, with no thread waiting: a thread has one piece of four rows.
template <class T>
struct RowCopies {
    const T* from[THREAD_ROWS];
    bool exists[THREAD_ROWS];

    /// Row i begins at `row(i)` where `i < count`; others are zeros.
    template <class RowOf>
    DEVICE RowCopies(u32 count, RowOf row) {
        UNROLL
        for (u32 k = 0; k < THREAD_ROWS; k++) {
            u32 i = row_of(k);
            exists[k] = i < count;
            from[k] = row(exists[k] ? i : 0);
        }
    }
    static DEVICE u32 row_of(u32 k) { return thread_index() / PIECES + k * (TILE_THREADS / PIECES); }
    static DEVICE u32 own_column() { return thread_index() % PIECES * PIECE; }

    DEVICE void begin(u32 column, u32 columns, T* stage) const {
        u32 at = column + own_column();
        UNROLL
        for (u32 k = 0; k < THREAD_ROWS; k++) {
            bool copies = exists[k] && at < columns;
            // Nothing is read for what is not there, at an address that is.
            copy_async_16_if(copies, stage + tile_at(row_of(k), own_column()), from[k] + (copies ? at : 0));
        }
    }
};

/// A thread's share of 64 columns of weights, or of rows of any length, in registers between memory and shared memory.
template <class T, class Format>
struct Share {
    static constexpr u32 N = Format::COLUMNS, STEP = N < PIECE ? N : PIECE, WIDE = TILE_COLUMNS / N;
    static constexpr u32 PARTS = TILE_FEATURES * WIDE / TILE_THREADS;
    static_assert(PARTS * TILE_THREADS == TILE_FEATURES * WIDE, "all threads have as much to do");
    typename Format::Raw raw[PARTS];

    DEVICE void fetch(const WeightArgs& weight, u32 feature0, u32 column) {
        UNROLL
        for (u32 k = 0; k < PARTS; k++) {
            u32 i = thread_index() + k * TILE_THREADS, feature = feature0 + i / WIDE, at = column + i % WIDE * N;
            bool exists = feature < weight.features && at < weight.columns;
            raw[k] = exists ? Format::fetch(weight, feature, at) : typename Format::Raw{};
        }
    }
    DEVICE void store(T* stage) const {
        UNROLL
        for (u32 k = 0; k < PARTS; k++) {
            u32 i = thread_index() + k * TILE_THREADS;
            float values[N];
            Format::decode(raw[k], values);
            UNROLL
            for (u32 j = 0; j < N; j += STEP) {
                Vec<T, STEP> part;
                UNROLL
                for (u32 e = 0; e < STEP; e++) part.at[e] = narrow<T>(values[j + e]);
                ::store(stage + tile_at(i / WIDE, i % WIDE * N + j), part);
            }
        }
    }
};

/// Weights that need no decoding are copied as rows are.
template <class T, class Format>
struct TileWeights {
    Share<T, Format> share;
    DEVICE TileWeights(const WeightArgs&, u32) {}
    DEVICE void copy(const WeightArgs&, u32, T*) const {}
    DEVICE void fetch(const WeightArgs& weight, u32 feature0, u32 column) { share.fetch(weight, feature0, column); }
    DEVICE void store(T* stage) const { share.store(stage); }
};
template <class T>
struct TileWeights<T, Plain<T, PIECE>> {
    RowCopies<T> copies;
    DEVICE TileWeights(const WeightArgs& weight, u32 feature0)
        : copies(weight.features - feature0, [&](u32 i) { return static_cast<const T*>(weight.codes) + u64(feature0 + i) * weight.columns; }) {}
    DEVICE void copy(const WeightArgs& weight, u32 column, T* stage) const { copies.begin(column, weight.columns, stage); }
    DEVICE void fetch(const WeightArgs&, u32, u32) {}
    DEVICE void store(T*) const {}
};

/// Rows of activations: copied, unless their length is no multiple of 16 bytes.
template <class T, bool ARE_PIECES>
struct TileRows {
    RowCopies<T> copies;
    template <class Rows>
    DEVICE TileRows(const T* x, u32 columns, u32 count, const Rows& rows)
        : copies(count, [&](u32 i) { return x + u64(rows.x(i)) * columns; }) {}
    DEVICE void copy(u32 column, u32 columns, T* stage) const { copies.begin(column, columns, stage); }
    template <class Rows>
    DEVICE void fetch(const T*, u32, u32, const Rows&, u32) {}
    DEVICE void store(T*) const {}
};
template <class T>
struct TileRows<T, false> {
    static constexpr u32 PARTS = TILE_ROWS * TILE_COLUMNS / TILE_THREADS;
    T raw[PARTS];
    template <class Rows>
    DEVICE TileRows(const T*, u32, u32, const Rows&) {}
    DEVICE void copy(u32, u32, T*) const {}
    template <class Rows>
    DEVICE void fetch(const T* x, u32 columns, u32 count, const Rows& rows, u32 column) {
        UNROLL
        for (u32 k = 0; k < PARTS; k++) {
            u32 i = thread_index() + k * TILE_THREADS, row = i / TILE_COLUMNS, at = column + i % TILE_COLUMNS;
            raw[k] = row < count && at < columns ? x[u64(rows.x(row)) * columns + at] : T{0};
        }
    }
    DEVICE void store(T* stage) const {
        UNROLL
        for (u32 k = 0; k < PARTS; k++) {
            u32 i = thread_index() + k * TILE_THREADS;
            stage[tile_at(i / TILE_COLUMNS, i % TILE_COLUMNS)] = raw[k];
        }
    }
};

/// 16 rows of each team, from `row0` on, times 64 features.
template <class T>
DEVICE void multiply_stage(const T* rows, const T* weights, u32 row0, float (&sums)[TILE_FEATURES / 8][4]) {
    u32 lane = team_lane();
    UNROLL
    for (u32 k = 0; k < TILE_COLUMNS; k += 16) {
        u32 a[4], b[4];
        load_matrices<false>(a, rows + tile_at(row0 + lane % 16, k + lane / 16 * 8));
        UNROLL
        for (u32 n = 0; n < TILE_FEATURES; n += 16) {
            load_matrices<false>(b, weights + tile_at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
            mma<T>(sums[n / 8], a, b[0], b[1]);
            mma<T>(sums[n / 8 + 1], a, b[2], b[3]);
        }
    }
}

/// `count` rows of `x`, at `rows.x(i)`, times 64 features, into rows `rows.out(i)` of `out`, which are `out_cols` long. Each team takes 16 rows.
template <class T, class Out, class Format, class Rows>
DEVICE void multiply_tile(const WeightArgs& weight, const T* x, const float* bias, Out* out, u32 out_cols, u32 count, Rows rows) {
    SHARED(TileShared<T>, shared);
    u32 feature0 = block_index_x() * TILE_FEATURES, lane = team_lane(), row0 = team_index() * 16, columns = weight.columns;
    float sums[TILE_FEATURES / 8][4] = {};
    constexpr bool ARE_PIECES = Format::COLUMNS % PIECE == 0;
    TileRows<T, ARE_PIECES> own_rows(x, columns, count, rows);
    TileWeights<T, Format> own_weights(weight, feature0);
    UNROLL
    for (u32 stage = 0; stage + 1 < TILE_STAGES; stage++) {
        own_rows.copy(stage * TILE_COLUMNS, columns, shared.rows[stage]);
        own_weights.copy(weight, stage * TILE_COLUMNS, shared.weights[stage]);
        copy_commit();
    }
    own_rows.fetch(x, columns, count, rows, 0);
    own_rows.store(shared.rows[0]);
    own_weights.fetch(weight, feature0, 0);
    own_weights.store(shared.weights[0]);
    for (u32 column = 0, stage = 0; column < columns; column += TILE_COLUMNS) {
        u32 next = stage + 1 < TILE_STAGES ? stage + 1 : 0, last = next + 1 < TILE_STAGES ? next + 1 : 0;
        copy_wait<TILE_STAGES - 2>();
        // This stage is there for all, and all are done with the one before, whose place is filled again.
        sync_block();
        u32 ahead = column + (TILE_STAGES - 1) * TILE_COLUMNS;
        if (ahead < columns) {
            own_rows.copy(ahead, columns, shared.rows[last]);
            own_weights.copy(weight, ahead, shared.weights[last]);
        }
        copy_commit();
        // What must pass through registers is under way while this stage is multiplied.
        own_rows.fetch(x, columns, count, rows, column + TILE_COLUMNS);
        if (ARE_PIECES) own_weights.fetch(weight, feature0, column + TILE_COLUMNS);
        multiply_stage(shared.rows[stage], shared.weights[stage], row0, sums);
        own_rows.store(shared.rows[next]);
        // Registers do not hold odd rows and odd weights at once.
        if (!ARE_PIECES) own_weights.fetch(weight, feature0, column + TILE_COLUMNS);
        own_weights.store(shared.weights[next]);
        stage = next;
    }
    float biases[TILE_FEATURES / 8][2] = {};
    UNROLL
    for (u32 n = 0; n < TILE_FEATURES / 4; n++) {
        u32 feature = feature0 + n / 2 * 8 + lane % 4 * 2 + n % 2;
        if (bias && feature < weight.features) biases[n / 2][n % 2] = bias[feature];
    }
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = row0 + lane / 4 + 8 * i;
        if (row >= count) continue;
        Out* to = out + u64(rows.out(row)) * out_cols;
        UNROLL
        for (u32 n = 0; n < TILE_FEATURES / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 2; j++) {
                u32 feature = feature0 + n * 8 + lane % 4 * 2 + j;
                float sum = sums[n][2 * i + j];
                if (feature < weight.features) to[feature] = narrow<Out>(bias ? sum + biases[n][j] : sum);
            }
        }
    }
}
