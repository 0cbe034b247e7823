// Which variants of the kernels are compiled. With no define all are, as for prebuilt binaries and checks. With TOKENFLOW_ONLY, those that
// are asked for beside it: TOKENFLOW_F32, _BF16, _F16 (activations), TOKENFLOW_KV_F32, _KV_BF16, _KV_F16, _KV_E4M3 (the cache),
// TOKENFLOW_DIM_64, _DIM_128, _DIM_256 (the least that holds a head), TOKENFLOW_Q8_0, _Q4_K, _Q5_K, _Q6_K, _INT4, _FP8 (encodings of
// weights beside plain ones), TOKENFLOW_ODD (rows of weights whose length is no multiple of 8).
#pragma once

#if !defined(TOKENFLOW_ONLY)
#define TOKENFLOW_F32
#define TOKENFLOW_BF16
#define TOKENFLOW_F16
#define TOKENFLOW_KV_F32
#define TOKENFLOW_KV_BF16
#define TOKENFLOW_KV_F16
#define TOKENFLOW_KV_E4M3
#define TOKENFLOW_DIM_64
#define TOKENFLOW_DIM_128
#define TOKENFLOW_DIM_256
#define TOKENFLOW_Q8_0
#define TOKENFLOW_Q4_K
#define TOKENFLOW_Q5_K
#define TOKENFLOW_Q6_K
#define TOKENFLOW_INT4
#define TOKENFLOW_FP8
#define TOKENFLOW_ODD
#endif

#if defined(TOKENFLOW_F32)
#define IF_F32(...) __VA_ARGS__
#else
#define IF_F32(...)
#endif
#if defined(TOKENFLOW_BF16)
#define IF_BF16(...) __VA_ARGS__
#else
#define IF_BF16(...)
#endif
#if defined(TOKENFLOW_F16)
#define IF_F16(...) __VA_ARGS__
#else
#define IF_F16(...)
#endif
#if defined(TOKENFLOW_KV_F32)
#define IF_KV_F32(...) __VA_ARGS__
#else
#define IF_KV_F32(...)
#endif
#if defined(TOKENFLOW_KV_BF16)
#define IF_KV_BF16(...) __VA_ARGS__
#else
#define IF_KV_BF16(...)
#endif
#if defined(TOKENFLOW_KV_F16)
#define IF_KV_F16(...) __VA_ARGS__
#else
#define IF_KV_F16(...)
#endif
#if defined(TOKENFLOW_KV_E4M3)
#define IF_KV_E4M3(...) __VA_ARGS__
#else
#define IF_KV_E4M3(...)
#endif
#if defined(TOKENFLOW_DIM_64)
#define IF_DIM_64(...) __VA_ARGS__
#else
#define IF_DIM_64(...)
#endif
#if defined(TOKENFLOW_DIM_128)
#define IF_DIM_128(...) __VA_ARGS__
#else
#define IF_DIM_128(...)
#endif
#if defined(TOKENFLOW_DIM_256)
#define IF_DIM_256(...) __VA_ARGS__
#else
#define IF_DIM_256(...)
#endif
#if defined(TOKENFLOW_Q8_0)
#define IF_Q8_0(...) __VA_ARGS__
#else
#define IF_Q8_0(...)
#endif
#if defined(TOKENFLOW_Q4_K)
#define IF_Q4_K(...) __VA_ARGS__
#else
#define IF_Q4_K(...)
#endif
#if defined(TOKENFLOW_Q5_K)
#define IF_Q5_K(...) __VA_ARGS__
#else
#define IF_Q5_K(...)
#endif
#if defined(TOKENFLOW_Q6_K)
#define IF_Q6_K(...) __VA_ARGS__
#else
#define IF_Q6_K(...)
#endif
#if defined(TOKENFLOW_INT4)
#define IF_INT4(...) __VA_ARGS__
#else
#define IF_INT4(...)
#endif
#if defined(TOKENFLOW_FP8)
#define IF_FP8(...) __VA_ARGS__
#else
#define IF_FP8(...)
#endif
#if defined(TOKENFLOW_ODD)
#define IF_ODD(...) __VA_ARGS__
#else
#define IF_ODD(...)
#endif
