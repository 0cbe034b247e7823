//! Products by cublasLt. The algorithm of a kind of product is chosen once, without split sums and for whatever number of rows, so that a
//! row's bits do not depend on the batch; what is chosen is kept, and nothing of the card's memory is used.

use std::{
    collections::{HashMap, HashSet},
    ffi::{c_int, c_void},
    ptr,
};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoConfigAttributes_t as Config, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayoutAttribute_t, cublasLtReductionScheme_t, cudaDataType_t,
};
use parking_lot::Mutex;

use super::cublaslt::{Heuristic, LibCublasLt, lt};
use crate::{DevicePtr, Element, GpuError, Product};

/// Between a full batch's decode and a chunk of a prompt.
const REPRESENTATIVE_ROWS: usize = 1024;
/// The algorithm should do for these as well.
const OTHER_ROWS: [usize; 6] = [1, 2, 7, 64, 2048, 16384];
const MAX_CANDIDATES: usize = 32;
/// `CUBLAS_OP_T`.
const TRANSPOSED: c_int = 1;
/// What vector loads want of every row's address, where rows are that long.
const ALIGNMENT: usize = 16;

/// A product without its number of rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    features: usize,
    inner: usize,
    element: Element,
    out: Element,
}

/// All that a call needs but the addresses. cublasLt's matrices are by columns: it is told of the weight as inner x features, transposed,
/// of the activations as inner x rows, and of the result as features x rows.
struct Plan {
    operation: *mut c_void,
    weight: *mut c_void,
    x: *mut c_void,
    out: *mut c_void,
    algo: cublasLtMatmulAlgo_t,
    /// Numbers of rows that the algorithm is known to do.
    checked: HashSet<usize>,
}

pub(super) struct Products {
    lib: LibCublasLt,
    handle: *mut c_void,
    plans: Mutex<HashMap<Kind, Plan>>,
}

// SAFETY: the handle may be used by several threads; descriptions are changed under the lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

// SAFETY, of every block below: descriptions are created by this library and alive, and attributes are given with their types' sizes.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Products {
    /// The card's context must be this thread's, here and in every other function.
    pub(super) fn new(lib: LibCublasLt) -> Result<Self, GpuError> {
        let mut handle = ptr::null_mut();
        unsafe { lt!(lib, cublasLtCreate(&mut handle))? };
        Ok(Self { lib, handle, plans: Mutex::default() })
    }

    /// # Safety
    /// As [`crate::Driver::product`].
    pub(super) unsafe fn product(
        &self,
        product: &Product,
        x: DevicePtr,
        weight: DevicePtr,
        out: DevicePtr,
        stream: *mut c_void,
    ) -> Result<(), GpuError> {
        let Product { rows, features, inner, element, out: out_element } = *product;
        if rows == 0 {
            return Ok(());
        }
        let kind = Kind { features, inner, element, out: out_element };
        let [of_inputs, of_out] = alignments(&kind);
        if !(x.0 | weight.0).is_multiple_of(of_inputs as u64) || !out.0.is_multiple_of(of_out as u64) {
            let reason = format!("addresses of {features} x {inner} must be multiples of {of_inputs} bytes, and {of_out} of the result");
            return Err(GpuError::Call { call: "cublasLtMatmul", reason });
        }
        let mut plans = self.plans.lock();
        let plan = match plans.entry(kind) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => none.insert(self.plan(&kind)?),
        };
        self.set_rows(plan, rows)?;
        if !plan.checked.contains(&rows) {
            if !self.does(plan, &plan.algo) {
                let reason = format!("the algorithm for {features} x {inner} does not do {rows} rows");
                return Err(GpuError::Call { call: "cublasLtMatmulAlgoCheck", reason });
            }
            plan.checked.insert(rows);
        }
        let (one, zero) = (1_f32, 0_f32);
        unsafe {
            lt!(
                self.lib,
                cublasLtMatmul(
                    self.handle,
                    plan.operation,
                    (&raw const one).cast(),
                    weight.0 as *const c_void,
                    plan.weight,
                    x.0 as *const c_void,
                    plan.x,
                    (&raw const zero).cast(),
                    out.0 as *const c_void,
                    plan.out,
                    out.0 as *mut c_void,
                    plan.out,
                    &plan.algo,
                    ptr::null_mut(),
                    0,
                    stream,
                )
            )
        }
    }

    fn plan(&self, kind: &Kind) -> Result<Plan, GpuError> {
        let lib = &self.lib;
        let (features, inner, rows) = (kind.features as u64, kind.inner as u64, REPRESENTATIVE_ROWS as u64);
        let layout = |element, rows, columns| {
            let mut layout = ptr::null_mut();
            unsafe { lt!(lib, cublasLtMatrixLayoutCreate(&mut layout, data_type(element), rows, columns, rows as i64))? };
            Ok(layout)
        };
        let mut plan = Plan {
            operation: ptr::null_mut(),
            weight: ptr::null_mut(),
            x: ptr::null_mut(),
            out: ptr::null_mut(),
            algo: Heuristic::EMPTY.algo,
            checked: HashSet::new(),
        };
        let chosen = (|| {
            let transpose = TRANSPOSED;
            let attribute = cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
            let (compute, scale) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType_t::CUDA_R_32F);
            unsafe {
                lt!(lib, cublasLtMatmulDescCreate(&mut plan.operation, compute, scale))?;
                lt!(lib, cublasLtMatmulDescSetAttribute(plan.operation, attribute, (&raw const transpose).cast(), size_of::<c_int>()))?;
            }
            plan.weight = layout(kind.element, inner, features)?;
            plan.x = layout(kind.element, inner, rows)?;
            plan.out = layout(kind.out, features, rows)?;
            self.choose(&plan, kind)
        })();
        match chosen {
            Ok(algo) => Ok(Plan { algo, ..plan }),
            Err(error) => {
                self.destroy(&plan);
                Err(error)
            }
        }
    }

    /// Of the algorithms that split no sum, the one that does the most numbers of rows; of several, the fastest at the representative one.
    fn choose(&self, plan: &Plan, kind: &Kind) -> Result<cublasLtMatmulAlgo_t, GpuError> {
        let mut best: Option<(usize, cublasLtMatmulAlgo_t)> = None;
        for candidate in self.candidates(plan, kind)? {
            if candidate.state != 0 || self.splits(&candidate.algo) {
                continue;
            }
            let mut done = 0;
            for rows in OTHER_ROWS {
                self.set_rows(plan, rows)?;
                done += usize::from(self.does(plan, &candidate.algo));
            }
            if best.is_none_or(|(most, _)| done > most) {
                best = Some((done, candidate.algo));
            }
            if done == OTHER_ROWS.len() {
                break;
            }
        }
        let Kind { features, inner, .. } = kind;
        let reason = || format!("no algorithm for {features} x {inner} does without splitting sums");
        let call = "cublasLtMatmulAlgoGetHeuristic";
        best.map(|(_, algo)| algo).ok_or_else(|| GpuError::Call { call, reason: reason() })
    }

    fn candidates(&self, plan: &Plan, kind: &Kind) -> Result<Vec<Heuristic>, GpuError> {
        let lib = &self.lib;
        let mut preference = ptr::null_mut();
        let (mut found, mut count) = (vec![Heuristic::EMPTY; MAX_CANDIDATES], 0);
        let [of_inputs, of_out] = alignments(kind);
        let none = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as usize;
        unsafe {
            lt!(lib, cublasLtMatmulPreferenceCreate(&mut preference))?;
            let set = |attribute, value: usize| {
                let value = value as u32;
                lt!(lib, cublasLtMatmulPreferenceSetAttribute(preference, attribute, (&raw const value).cast(), size_of::<u32>()))
            };
            // No workspace, which is the default: only split sums want one, and streams would have to share it.
            let result = set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, none)
                .and_then(|()| set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_inputs))
                .and_then(|()| set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_inputs))
                .and_then(|()| set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_out))
                .and_then(|()| set(Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out))
                .and_then(|()| {
                    lt!(
                        lib,
                        cublasLtMatmulAlgoGetHeuristic(
                            self.handle,
                            plan.operation,
                            plan.weight,
                            plan.x,
                            plan.out,
                            plan.out,
                            preference,
                            MAX_CANDIDATES as c_int,
                            found.as_mut_ptr(),
                            &mut count,
                        )
                    )
                });
            lt!(lib, cublasLtMatmulPreferenceDestroy(preference))?;
            result?;
        }
        found.truncate(usize::try_from(count).unwrap_or(0));
        Ok(found)
    }

    /// Whether the terms of one sum may be added up by several blocks.
    fn splits(&self, algo: &cublasLtMatmulAlgo_t) -> bool {
        let get = |attribute| {
            let (mut value, mut written) = (0_u32, 0);
            let size = size_of::<u32>();
            unsafe { lt!(self.lib, cublasLtMatmulAlgoConfigGetAttribute(algo, attribute, (&raw mut value).cast(), size, &mut written)) }
                .map(|()| value)
        };
        let none = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
        let parts = get(Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
        let scheme = get(Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
        !matches!((parts, scheme), (Ok(0 | 1), Ok(scheme)) if scheme == none)
    }

    /// Whether the algorithm does the plan's product, without a workspace.
    fn does(&self, plan: &Plan, algo: &cublasLtMatmulAlgo_t) -> bool {
        let mut result = Heuristic::EMPTY;
        let code = unsafe {
            (self.lib.cublasLtMatmulAlgoCheck)(self.handle, plan.operation, plan.weight, plan.x, plan.out, plan.out, algo, &mut result)
        };
        code == 0 && result.workspace_bytes == 0
    }

    fn set_rows(&self, plan: &Plan, rows: usize) -> Result<(), GpuError> {
        let rows = rows as u64;
        let attribute = cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
        [plan.x, plan.out].into_iter().try_for_each(|layout| unsafe {
            lt!(self.lib, cublasLtMatrixLayoutSetAttribute(layout, attribute, (&raw const rows).cast(), size_of::<u64>()))
        })
    }

    fn destroy(&self, plan: &Plan) {
        for layout in [plan.weight, plan.x, plan.out].into_iter().filter(|layout| !layout.is_null()) {
            unsafe { (self.lib.cublasLtMatrixLayoutDestroy)(layout) };
        }
        if !plan.operation.is_null() {
            unsafe { (self.lib.cublasLtMatmulDescDestroy)(plan.operation) };
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.lock().values().for_each(|plan| self.destroy(plan));
        // SAFETY: created, and used no more.
        unsafe { (self.lib.cublasLtDestroy)(self.handle) };
    }
}

fn data_type(element: Element) -> cudaDataType_t {
    match element {
        Element::F32 => cudaDataType_t::CUDA_R_32F,
        Element::F16 => cudaDataType_t::CUDA_R_16F,
        Element::BF16 => cudaDataType_t::CUDA_R_16BF,
    }
}

/// What the addresses of inputs and result are multiples of: every row's, wherever it begins.
fn alignments(kind: &Kind) -> [usize; 2] {
    let of = |element: Element, row: usize| {
        let bytes = row * if element == Element::F32 { 4 } else { 2 };
        ALIGNMENT.min(1 << bytes.trailing_zeros().min(4))
    };
    [of(kind.element, kind.inner), of(kind.out, kind.features)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_aligned_as_rows_are() {
        let kind = |features, inner, element, out| Kind { features, inner, element, out };
        assert_eq!(alignments(&kind(4096, 14336, Element::BF16, Element::BF16)), [16, 16]);
        assert_eq!(alignments(&kind(3, 12, Element::BF16, Element::BF16)), [8, 2]);
        assert_eq!(alignments(&kind(6, 7, Element::F16, Element::F32)), [2, 8]);
    }
}
