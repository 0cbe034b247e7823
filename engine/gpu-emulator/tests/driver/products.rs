//! cublasLt's products, of bf16 rows as the engine asks for them.

use std::{
    ffi::{c_int, c_void},
    ptr::null_mut,
};

use cudarc::cublaslt::sys::{self as lt, cublasStatus_t};
use tokenflow_gpu_emulator::Progress;

use crate::{card::Card, process::alone};

fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

#[test]
fn a_product_is_one() {
    alone("products::a_product_is_one", || {
        let card = Card::open(Progress::Lazy);
        let stream = card.stream();
        let (rows, features, inner) = (3_usize, 5_usize, 8_usize);
        // Small integers, so that everything is exact.
        let x: Vec<f32> = (0..rows * inner).map(|i| (i % 7) as f32 - 3.0).collect();
        let weight: Vec<f32> = (0..features * inner).map(|i| (i % 5) as f32 - 2.0).collect();
        let upload = |values: &[f32]| {
            let bits: Vec<u16> = values.iter().map(|&v| bf16(v)).collect();
            let memory = card.allocate(bits.len() * 2).unwrap();
            card.to_device(memory, bits.as_ptr().cast(), bits.len() * 2, stream).unwrap();
            memory
        };
        let (x_memory, weight_memory) = (upload(&x), upload(&weight));
        let out_memory = card.allocate(rows * features * 4).unwrap();
        let multiply = |out: u64, inner: usize| multiply(weight_memory, x_memory, out, [rows, features, inner], stream.cast());
        assert_eq!(multiply(out_memory, inner), cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        let mut out = vec![0_f32; rows * features];
        card.to_host(out.as_mut_ptr().cast(), out_memory, out.len() * 4, stream).unwrap();
        for row in 0..rows {
            for feature in 0..features {
                let expected: f32 = (0..inner).map(|i| x[row * inner + i] * weight[feature * inner + i]).sum();
                assert_eq!(out[row * features + feature], expected);
            }
        }
        assert_eq!(card.emulated.counters().products, 1);
        // One row too many is read.
        assert_eq!(multiply(out_memory, inner + 1), cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        assert!(card.wait(stream).is_err());
        card.has_told("product (operation 5 of stream 0): read of 90 bytes, beyond the end");
    });
}

#[allow(clippy::undocumented_unsafe_blocks)] // descriptions are created here and alive, and attributes have their types' sizes
fn multiply(weight: u64, x: u64, out: u64, [rows, features, inner]: [usize; 3], stream: lt::cudaStream_t) -> cublasStatus_t {
    let (mut handle, mut description, mut preference) = (null_mut(), null_mut(), null_mut());
    let mut layouts = [null_mut(); 3];
    let ok = |status| assert_eq!(status, cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    unsafe {
        ok(lt::cublasLtCreate(&mut handle));
        ok(lt::cublasLtMatmulDescCreate(&mut description, lt::cublasComputeType_t::CUBLAS_COMPUTE_32F, lt::cudaDataType_t::CUDA_R_32F));
        let transposed: c_int = 1;
        let attribute = lt::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        ok(lt::cublasLtMatmulDescSetAttribute(description, attribute, (&raw const transposed).cast(), 4));
        let (narrow, wide) = (lt::cudaDataType_t::CUDA_R_16BF, lt::cudaDataType_t::CUDA_R_32F);
        let shapes = [(narrow, inner, features), (narrow, inner, rows), (wide, features, rows)];
        for (layout, (element, rows, columns)) in layouts.iter_mut().zip(shapes) {
            ok(lt::cublasLtMatrixLayoutCreate(layout, element, rows as u64, columns as u64, rows as i64));
        }
        let [weights, inputs, outputs] = layouts;
        ok(lt::cublasLtMatmulPreferenceCreate(&mut preference));
        let (mut heuristic, mut checked): (lt::cublasLtMatmulHeuristicResult_t, _) = (std::mem::zeroed(), std::mem::zeroed());
        let mut found = 0;
        ok(lt::cublasLtMatmulAlgoGetHeuristic(
            handle,
            description,
            weights,
            inputs,
            outputs,
            outputs,
            preference,
            1,
            &mut heuristic,
            &mut found,
        ));
        assert_eq!(found, 1);
        let wrong = lt::cublasLtMatmulAlgoCheck(handle, description, weights, outputs, inputs, inputs, &heuristic.algo, &mut checked);
        assert_ne!(wrong, cublasStatus_t::CUBLAS_STATUS_SUCCESS, "sizes that do not go together");
        ok(lt::cublasLtMatmulAlgoCheck(handle, description, weights, inputs, outputs, outputs, &heuristic.algo, &mut checked));
        let (one, zero) = (1_f32, 0_f32);
        lt::cublasLtMatmul(
            handle,
            description,
            (&raw const one).cast(),
            weight as *const c_void,
            weights,
            x as *const c_void,
            inputs,
            (&raw const zero).cast(),
            out as *const c_void,
            outputs,
            out as *mut c_void,
            outputs,
            &heuristic.algo,
            null_mut(),
            0,
            stream,
        )
    }
}
