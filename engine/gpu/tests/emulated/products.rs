//! Products by the vendor's library.

use bytemuck::Pod;
use tokenflow_gpu::{DeviceChoice, Element, Gpu, Product};

use crate::card::{download, on_nvidia, upload};

const FEATURES: usize = 24;
const INNER: usize = 40;
const ROWS: usize = 5;

/// Small integers, whose products and sums are exact in every type.
fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + i / 3 + seed) % 5) as f32 - 2.0).collect()
}

fn multiply(x: &[f32], weight: &[f32], rows: usize) -> Vec<f32> {
    let sum = |row: usize, feature: usize| (0..INNER).map(|i| x[row * INNER + i] * weight[feature * INNER + i]).sum();
    (0..rows * FEATURES).map(|i| sum(i / FEATURES, i % FEATURES)).collect()
}

/// Of numbers that need no more than bf16's 8 bits.
fn to_bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|v| (v.to_bits() >> 16) as u16).collect()
}

fn from_bf16(values: &[u16]) -> Vec<f32> {
    values.iter().map(|v| f32::from_bits(u32::from(*v) << 16)).collect()
}

/// The product of `rows` rows from row `first` on.
fn run<T: Pod, Out: Pod>(gpu: &Gpu, x: &[T], weight: &[T], first: usize, product: Product) -> Vec<Out> {
    let stream = gpu.stream().unwrap();
    let (x, weight) = (upload(gpu, &stream, x), upload(gpu, &stream, weight));
    let out = gpu.allocate(product.rows * FEATURES * size_of::<Out>()).unwrap();
    // SAFETY: all are as large as the product says, and outlive the wait.
    unsafe { stream.product(&product, x.start().add(first * INNER * size_of::<T>()), weight.start(), out.start()).unwrap() };
    download(gpu, &stream, &out)
}

#[test]
fn products_are_what_they_should_be() {
    on_nvidia(|gpu, _| {
        let (x, weight) = (values(1, ROWS * INNER), values(2, FEATURES * INNER));
        let expected = multiply(&x, &weight, ROWS);
        let product = Product { rows: ROWS, features: FEATURES, inner: INNER, element: Element::F32, out: Element::F32 };
        assert_eq!(run::<f32, f32>(gpu, &x, &weight, 0, product), expected);
        let bf16 = Product { element: Element::BF16, ..product };
        let (x16, weight16) = (to_bf16(&x), to_bf16(&weight));
        assert_eq!(run::<u16, f32>(gpu, &x16, &weight16, 0, bf16), expected);
        let narrow = Product { out: Element::BF16, ..bf16 };
        assert_eq!(from_bf16(&run::<u16, u16>(gpu, &x16, &weight16, 0, narrow)), expected);
        for row in 0..ROWS {
            let alone = run::<u16, f32>(gpu, &x16, &weight16, row, Product { rows: 1, ..bf16 });
            assert_eq!(alone, expected[row * FEATURES..(row + 1) * FEATURES], "row {row} alone");
        }
    });
}

#[test]
fn a_products_kind_is_prepared_once_and_can_be_recorded_then() {
    on_nvidia(|gpu, emulated| {
        let stream = gpu.stream().unwrap();
        let (x, weight) = (values(3, ROWS * INNER), values(4, FEATURES * INNER));
        let expected = multiply(&x, &weight, ROWS);
        let (x, weight) = (upload(gpu, &stream, &x), upload(gpu, &stream, &weight));
        let out = gpu.allocate(ROWS * FEATURES * 4).unwrap();
        let product = Product { rows: ROWS, features: FEATURES, inner: INNER, element: Element::F32, out: Element::F32 };
        // SAFETY: all are as large as the product says, and outlive the last wait.
        let issue = |rows| unsafe { stream.product(&Product { rows, ..product }, x.start(), weight.start(), out.start()) };
        issue(1).unwrap();
        stream.wait().unwrap();

        emulated.reset_counters();
        let graph = stream.capture(|| issue(ROWS)).unwrap();
        // SAFETY: as above.
        unsafe {
            stream.fill(out.start(), 0xff, out.bytes()).unwrap();
            stream.replay(&graph).unwrap();
        }
        assert_eq!(emulated.counters().allocations, 0);
        assert_eq!(download::<f32>(gpu, &stream, &out), expected);
        issue(0).unwrap();
    });
}

/// As many rows of the product as the emulated card does quickly.
fn small(rows: usize) -> Product {
    Product { rows, features: FEATURES, inner: INNER, element: Element::F32, out: Element::F32 }
}

#[test]
fn a_bucket_of_rows_shares_an_algorithm() {
    on_nvidia(|gpu, emulated| {
        let (x, weight) = (values(5, 257 * INNER), values(6, FEATURES * INNER));
        let expected = multiply(&x, &weight, 257);
        assert!(gpu.driver().has_products());
        emulated.reset_counters();
        for (rows, heuristics) in [(1, 1), (64, 1), (33, 1), (65, 2), (256, 2), (257, 3), (9, 3)] {
            assert_eq!(run::<f32, f32>(gpu, &x, &weight, 0, small(rows)), expected[..rows * FEATURES], "{rows} rows");
            assert_eq!(emulated.counters().heuristics, heuristics, "{rows} rows");
        }
        assert_eq!(emulated.counters().errors, 0, "{}", emulated.last_error());
    });
}

/// The emulated library's algorithms do 67 rows only where they were asked for them.
#[test]
fn a_number_of_rows_that_a_buckets_algorithm_does_not_do_has_its_own() {
    on_nvidia(|gpu, emulated| {
        let (x, weight) = (values(7, 67 * INNER), values(8, FEATURES * INNER));
        let expected = multiply(&x, &weight, 67);
        let heuristics = [66, 67, 67, 66].map(|rows| {
            assert_eq!(run::<f32, f32>(gpu, &x, &weight, 0, small(rows)), expected[..rows * FEATURES], "{rows} rows");
            emulated.counters().heuristics
        });
        assert_eq!(heuristics, [1, 2, 2, 2]);
    });
}

#[test]
fn products_have_a_workspace_where_there_is_room_for_one() {
    on_nvidia(|gpu, emulated| {
        let before = gpu.memory().unwrap().free;
        assert!(gpu.driver().has_products());
        assert_eq!(before - gpu.memory().unwrap().free, 32 << 20);
        emulated.reset_counters();
        let (x, weight) = (values(9, INNER), values(10, FEATURES * INNER));
        assert_eq!(run::<f32, f32>(gpu, &x, &weight, 0, small(1)), multiply(&x, &weight, 1));

        let total = gpu.memory().unwrap().total;
        emulated.limit_memory(48 << 20);
        let crowded = Gpu::open(DeviceChoice::Cuda(Some(0))).unwrap();
        assert!(crowded.driver().has_products());
        assert_eq!(run::<f32, f32>(&crowded, &x, &weight, 0, small(1)), multiply(&x, &weight, 1));
        emulated.limit_memory(total);
    });
}

#[test]
fn addresses_must_be_aligned_as_rows_are() {
    on_nvidia(|gpu, _| {
        let stream = gpu.stream().unwrap();
        let memory = gpu.allocate(1 << 16).unwrap();
        let at = |bytes| memory.start().add(bytes);
        let product = Product { rows: 1, features: FEATURES, inner: INNER, element: Element::BF16, out: Element::BF16 };
        // SAFETY: nothing is issued.
        let error = unsafe { stream.product(&product, at(8), at(1024), at(2048)) }.unwrap_err().to_string();
        assert_eq!(error, "cublasLtMatmul failed: addresses of 24 x 40 must be multiples of 16 bytes, and 16 of the result");
    });
}
