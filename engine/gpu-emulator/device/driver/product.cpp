// Products of matrices, as cublasLt does them: sums in f32, in the order of the inner index.

// Where models multiply by the library, most of the time goes here.
#pragma GCC optimize("O3")

#include <cstring>

#include "driver.h"

namespace driver {

constexpr int F32 = 0, F16 = 2, BF16 = 14;

static size_t element_bytes(int type) { return type == F32 ? 4 : 2; }

static float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static float half_to_float(uint16_t half) {
    uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) return as_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    // Exact, also for what is subnormal: 2^112 makes up for the exponents' different bias.
    float value = as_float(magnitude << 13) * as_float(0x77800000);
    return sign ? -value : value;
}

static uint16_t float_to_half(float value) {
    _Float16 half = _Float16(value);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}

static uint16_t float_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float load(const char* at, int type) {
    if (type == F32) {
        float value;
        std::memcpy(&value, at, 4);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return type == F16 ? half_to_float(bits) : as_float(uint32_t(bits) << 16);
}

static void store(char* at, int type, float value) {
    if (type == F32) {
        std::memcpy(at, &value, 4);
        return;
    }
    uint16_t bits = type == F16 ? float_to_half(value) : float_to_bf16(value);
    std::memcpy(at, &bits, 2);
}

static size_t place(const Matrix& m, uint64_t row, uint64_t column) {
    return (m.order == 0 ? row + column * uint64_t(m.leading) : row * uint64_t(m.leading) + column) * element_bytes(m.type);
}

/// Every run of elements without gaps is checked as one access.
static bool touch(Device& device, const char* start, const Matrix& m, bool is_write) {
    uint64_t runs = m.order == 0 ? m.columns : m.rows, length = m.order == 0 ? m.rows : m.columns;
    if (uint64_t(m.leading) == length) return device.touch(start, runs * length * element_bytes(m.type), is_write);
    for (uint64_t i = 0; i < runs; i++) {
        if (!device.touch(start + i * uint64_t(m.leading) * element_bytes(m.type), length * element_bytes(m.type), is_write)) return false;
    }
    return true;
}

bool run_product(Device& device, const Product& p) {
    const Matrix &a = p.layouts[0], &b = p.layouts[1], &c = p.layouts[2], &d = p.layouts[3];
    if (!touch(device, p.a, a, false) || !touch(device, p.b, b, false)) return false;
    if (p.beta != 0 && !touch(device, p.c, c, false)) return false;
    if (p.workspace_bytes > 0 && !device.touch(p.workspace, p.workspace_bytes, true)) return false;
    if (!touch(device, p.d, d, true)) return false;
    const uint64_t rows = d.rows, columns = d.columns, inner = p.transposed[0] ? a.rows : a.columns;
    // op(a), one inner index after the other.
    std::vector<float> left(rows * inner), sums(rows);
    for (uint64_t k = 0; k < inner; k++) {
        for (uint64_t i = 0; i < rows; i++) left[k * rows + i] = load(p.a + (p.transposed[0] ? place(a, k, i) : place(a, i, k)), a.type);
    }
    for (uint64_t j = 0; j < columns; j++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (uint64_t k = 0; k < inner; k++) {
            const float right = load(p.b + (p.transposed[1] ? place(b, j, k) : place(b, k, j)), b.type);
            const float* column = left.data() + k * rows;
            float* sum = sums.data();
            for (uint64_t i = 0; i < rows; i++) sum[i] += column[i] * right;
        }
        for (uint64_t i = 0; i < rows; i++) {
            float value = p.alpha * sums[i];
            if (p.beta != 0) value += p.beta * load(p.c + place(c, i, j), c.type);
            store(p.d + place(d, i, j), d.type, value);
        }
    }
    return true;
}

}  // namespace driver
