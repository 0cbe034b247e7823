// cublasLt's names for products. Only what it promises for dense matrices of 16 and 32 bits with sums in f32 is there.

#include <cstring>

#include "../driver/driver.h"

using namespace driver;

namespace {

constexpr int SUCCESS = 0, NOT_INITIALISED = 1, BAD_VALUE = 7, FAILED = 13, UNSUPPORTED = 15;
constexpr int F32 = 0, F16 = 2, BF16 = 14;
constexpr uint64_t ALGORITHM = 0x656d756c61746564;
/// Algorithms do multiples of this many columns only where they were asked for at exactly that number: the vendor's may not do all either.
constexpr uint64_t ODD_COLUMNS = 67;

struct Handle {};

struct Description {
    int compute, scale;
    int transposed[2] = {0, 0};
};

struct Preference {
    size_t workspace = 0;
};

/// Its mark, bytes of workspace, and the number of columns that it was asked for at.
struct Algorithm {
    uint64_t data[8];
};

struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

int refuse(const std::string& reason, int status = BAD_VALUE) {
    misuse(INVALID_VALUE, "cublasLt: " + reason);
    return status;
}

uint64_t rows_of(const Matrix& m, bool transposed) { return transposed ? m.columns : m.rows; }
uint64_t columns_of(const Matrix& m, bool transposed) { return transposed ? m.rows : m.columns; }

int check(const Description* description, const Matrix* a, const Matrix* b, const Matrix* c, const Matrix* d) {
    if (!description || !a || !b || !c || !d) return refuse("a description is missing");
    // COMPUTE_32F, its pedantic form and those that round inputs; scales in f32.
    if (description->compute != 68 && description->compute != 69 && description->compute != 77) {
        return refuse("sums of another kind than f32", UNSUPPORTED);
    }
    if (description->scale != F32) return refuse("scales of another type than f32", UNSUPPORTED);
    for (const Matrix* m : {a, b, c, d}) {
        if (m->type != F32 && m->type != F16 && m->type != BF16) return refuse("elements of type " + std::to_string(m->type), UNSUPPORTED);
        uint64_t length = m->order == 0 ? m->rows : m->columns;
        if (m->rows == 0 || m->columns == 0 || m->leading < int64_t(length)) return refuse("a matrix without elements, or with a leading dimension that is too small");
    }
    if (a->type != b->type || c->type != d->type || (d->type != a->type && d->type != F32)) return refuse("types that do not go together", UNSUPPORTED);
    bool ta = description->transposed[0] != 0, tb = description->transposed[1] != 0;
    if (rows_of(*a, ta) != d->rows || columns_of(*b, tb) != d->columns || columns_of(*a, ta) != rows_of(*b, tb)) {
        return refuse("matrices of sizes that do not go together");
    }
    if (c->rows != d->rows || c->columns != d->columns) return refuse("c and d are of different sizes");
    return SUCCESS;
}

bool does(const Algorithm* algorithm, const Matrix* d) { return d->columns % ODD_COLUMNS != 0 || d->columns == algorithm->data[2]; }

}  // namespace

#define LOCKED std::lock_guard<std::mutex> guard(state().lock)

extern "C" {

size_t cublasLtGetVersion() { return 120800; }
size_t cublasLtGetCudartVersion() { return 12080; }

const char* cublasLtGetStatusName(int status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALISED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case BAD_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case UNSUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS unknown";
    }
}
const char* cublasLtGetStatusString(int status) { return cublasLtGetStatusName(status); }

int cublasLtCreate(Handle** to) {
    LOCKED;
    Gpu* gpu;
    if (current(gpu) != OK || check_uncaptured("the opening of cublasLt") != OK) return NOT_INITIALISED;
    *to = new Handle;
    return SUCCESS;
}
int cublasLtDestroy(Handle* handle) {
    delete handle;
    return SUCCESS;
}

int cublasLtMatmulDescCreate(Description** to, int compute, int scale) {
    *to = new Description{compute, scale};
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}
int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* from, size_t bytes) {
    LOCKED;
    int32_t value = 0;
    std::memcpy(&value, from, std::min(bytes, sizeof value));
    switch (attribute) {
        case 3: case 4:  // TRANSA, TRANSB
            if (bytes != 4 || value < 0 || value > 1) return refuse("a matrix is transposed or not");
            description->transposed[attribute - 3] = value;
            return SUCCESS;
        case 2: case 7:  // POINTER_MODE, EPILOGUE: the host's, none
            return value == (attribute == 2 ? 0 : 1) ? SUCCESS : refuse("the emulated GPU has only scales of the host, and no epilogue", UNSUPPORTED);
        default: return refuse("the emulated GPU knows no attribute " + std::to_string(attribute) + " of a product", UNSUPPORTED);
    }
}

int cublasLtMatrixLayoutCreate(Matrix** to, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    *to = new Matrix{type, rows, columns, leading};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Matrix* layout) {
    delete layout;
    return SUCCESS;
}
int cublasLtMatrixLayoutSetAttribute(Matrix* layout, int attribute, const void* from, size_t bytes) {
    LOCKED;
    uint64_t value = 0;
    std::memcpy(&value, from, std::min(bytes, sizeof value));
    switch (attribute) {
        case 0: layout->type = int(value); return SUCCESS;
        case 1:
            if (value > 1) return refuse("an order of elements that is neither by columns nor by rows", UNSUPPORTED);
            layout->order = int(value);
            return SUCCESS;
        case 2: layout->rows = value; return SUCCESS;
        case 3: layout->columns = value; return SUCCESS;
        case 4: layout->leading = int64_t(value); return SUCCESS;
        case 5: return value == 1 ? SUCCESS : refuse("batches of matrices", UNSUPPORTED);
        default: return refuse("the emulated GPU knows no attribute " + std::to_string(attribute) + " of a matrix", UNSUPPORTED);
    }
}

int cublasLtMatmulPreferenceCreate(Preference** to) {
    *to = new Preference;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* from, size_t bytes) {
    if (attribute == 1 && bytes == sizeof(size_t)) std::memcpy(&preference->workspace, from, bytes);
    return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(Handle* handle, Description* description, Matrix* a, Matrix* b, Matrix* c, Matrix* d, Preference* preference, int wanted,
                                   Heuristic* results, int* found) {
    LOCKED;
    *found = 0;
    if (!handle || !preference || wanted < 1) return BAD_VALUE;
    if (int status = check(description, a, b, c, d)) return status;
    results[0] = {};
    results[0].algorithm.data[0] = ALGORITHM;
    results[0].workspace = results[0].algorithm.data[1] = std::min<size_t>(preference->workspace, 1024);
    results[0].algorithm.data[2] = d->columns;
    results[0].waves = 1;
    *found = 1;
    state().counters.heuristics++;
    return SUCCESS;
}

int cublasLtMatmulAlgoCheck(Handle* handle, Description* description, Matrix* a, Matrix* b, Matrix* c, Matrix* d, const Algorithm* algorithm, Heuristic* result) {
    LOCKED;
    if (!handle || !algorithm || algorithm->data[0] != ALGORITHM) return BAD_VALUE;
    if (int status = check(description, a, b, c, d)) return status;
    if (!does(algorithm, d)) return UNSUPPORTED;
    const Algorithm checked = *algorithm;
    *result = {};
    result->algorithm = checked;
    result->workspace = checked.data[1];
    result->waves = 1;
    return SUCCESS;
}

int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* to, size_t bytes, size_t* written) {
    LOCKED;
    if (!algorithm || algorithm->data[0] != ALGORITHM) return refuse("an algorithm that the heuristic did not give");
    // SPLITK_NUM, REDUCTION_SCHEME: sums are not split.
    if (attribute != 2 && attribute != 3) return refuse("the emulated GPU knows no attribute " + std::to_string(attribute) + " of an algorithm", UNSUPPORTED);
    if (bytes != 4) return refuse("an attribute of another size");
    uint32_t value = attribute == 2 ? 1 : 0;
    std::memcpy(to, &value, 4);
    if (written) *written = 4;
    return SUCCESS;
}

int cublasLtMatmul(Handle* handle, Description* description, const void* alpha, const void* a, Matrix* a_layout, const void* b, Matrix* b_layout, const void* beta,
                   const void* c, Matrix* c_layout, void* d, Matrix* d_layout, const Algorithm* algorithm, void* workspace, size_t workspace_bytes, Stream* stream) {
    LOCKED;
    if (!handle || !alpha || !beta) return refuse("a handle or a scale is missing");
    if (int status = check(description, a_layout, b_layout, c_layout, d_layout)) return status;
    if (algorithm && algorithm->data[0] != ALGORITHM) return refuse("an algorithm that the heuristic did not give");
    if (algorithm && !does(algorithm, d_layout)) return refuse("a number of columns that the algorithm does not do", UNSUPPORTED);
    if (check_stream(stream) != OK) return FAILED;
    Device& device = stream->gpu->device;
    for (const void* address : {a, b, c, static_cast<const void*>(d)}) {
        if (!device.holds(address)) return refuse("a matrix that is not in the device's memory");
    }
    if (reinterpret_cast<size_t>(workspace) % 256 != 0) return refuse("a workspace that is not aligned to 256 bytes");
    auto product = std::make_shared<Product>();
    product->transposed[0] = description->transposed[0] != 0;
    product->transposed[1] = description->transposed[1] != 0;
    product->a = static_cast<const char*>(a);
    product->b = static_cast<const char*>(b);
    product->c = static_cast<const char*>(c);
    product->d = static_cast<char*>(d);
    product->workspace = static_cast<char*>(workspace);
    product->workspace_bytes = algorithm ? algorithm->data[1] : 0;
    if (product->workspace_bytes > workspace_bytes) return refuse("a workspace that is smaller than the algorithm wants");
    product->layouts[0] = *a_layout;
    product->layouts[1] = *b_layout;
    product->layouts[2] = *c_layout;
    product->layouts[3] = *d_layout;
    std::memcpy(&product->alpha, alpha, 4);
    std::memcpy(&product->beta, beta, 4);
    Operation operation;
    operation.kind = Operation::PRODUCT;
    operation.name = "product";
    operation.product = product;
    state().counters.products++;
    return issue(stream, std::move(operation)) == OK ? SUCCESS : FAILED;
}
}
