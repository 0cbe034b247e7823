//! Products by cublasLt. The algorithm of a kind of product is chosen once for each bucket of numbers of rows, without split sums, so that a
//! row's bits depend on the batch by its bucket only; what is chosen is kept, and algorithms share one workspace.

use std::{
    collections::{HashMap, HashSet},
    ffi::{c_int, c_void},
    ptr,
    sync::Once,
};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoConfigAttributes_t as Config, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayoutAttribute_t, cublasLtReductionScheme_t, cudaDataType_t,
};
use parking_lot::Mutex;

use super::cublaslt::{Heuristic, LibCublasLt, lt};
use crate::{DevicePtr, Element, GpuError, Product};

/// What NVIDIA recommends for Hopper; where the card has no room for it, algorithms are those that want none.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;
/// Numbers of rows that algorithms are chosen at: each does for all rows from the one before on, the last for more as well.
const BUCKETS: [usize; 4] = [64, 256, 1024, 8192];
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

/// Addresses of a call.
struct Operands {
    x: DevicePtr,
    weight: DevicePtr,
    out: DevicePtr,
    stream: *mut c_void,
}

/// By the number of rows that a plan was made for: a bucket's, or one that its bucket's algorithm does not do.
type Plans = HashMap<(Kind, usize), Plan>;

pub(super) struct Products {
    lib: LibCublasLt,
    handle: *mut c_void,
    plans: Mutex<Plans>,
    /// On the card, of so many bytes. Whoever sets it frees it.
    pub(super) workspace: (DevicePtr, usize),
    /// Of telling that a library does not say how its algorithms add.
    unreadable: Once,
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
        Ok(Self { lib, handle, plans: Mutex::default(), workspace: (DevicePtr::NULL, 0), unreadable: Once::new() })
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
        let operands = Operands { x, weight, out, stream };
        let mut plans = self.plans.lock();
        let asked = if plans.contains_key(&(kind, rows)) { rows } else { bucket(rows) };
        match self.issue(&mut plans, (kind, asked), rows, &operands) {
            Err(error) if asked != rows => {
                tracing::info!(rows, features, inner, %error, "cublasLt is asked for an algorithm for exactly this number of rows");
                self.issue(&mut plans, (kind, rows), rows, &operands)
            }
            issued => issued,
        }
    }

    /// By the plan of `key`, which is made where there is none.
    fn issue(&self, plans: &mut Plans, key: (Kind, usize), rows: usize, operands: &Operands) -> Result<(), GpuError> {
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => none.insert(self.plan(&key.0, key.1)?),
        };
        self.set_rows(plan, rows)?;
        if !plan.checked.contains(&rows) {
            if !self.does(plan, &plan.algo) {
                let Kind { features, inner, .. } = key.0;
                let reason = format!("the algorithm for {features} x {inner} and {} rows does not do {rows}", key.1);
                return Err(GpuError::Call { call: "cublasLtMatmulAlgoCheck", reason });
            }
            plan.checked.insert(rows);
        }
        let (one, zero) = (1_f32, 0_f32);
        let Operands { x, weight, out, stream } = *operands;
        let (workspace, workspace_bytes) = self.workspace;
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
                    workspace.0 as *mut c_void,
                    workspace_bytes,
                    stream,
                )
            )
        }
    }

    fn plan(&self, kind: &Kind, asked: usize) -> Result<Plan, GpuError> {
        let lib = &self.lib;
        let (features, inner, rows) = (kind.features as u64, kind.inner as u64, asked as u64);
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
            self.choose(&plan, kind, asked)
        })();
        match chosen {
            Ok(algo) => Ok(Plan { algo, ..plan }),
            Err(error) => {
                self.destroy(&plan);
                Err(error)
            }
        }
    }

    /// Of the algorithms that split no sum, the one that does the most numbers of rows of the bucket; of several, the fastest at its top.
    fn choose(&self, plan: &Plan, kind: &Kind, asked: usize) -> Result<cublasLtMatmulAlgo_t, GpuError> {
        let samples = samples(asked);
        let mut best: Option<(usize, cublasLtMatmulAlgo_t)> = None;
        for candidate in self.candidates(plan, kind)? {
            if candidate.state != 0 || self.splits(&candidate.algo) {
                continue;
            }
            let mut done = 0;
            for &rows in &samples {
                self.set_rows(plan, rows)?;
                done += usize::from(self.does(plan, &candidate.algo));
            }
            if best.is_none_or(|(most, _)| done > most) {
                best = Some((done, candidate.algo));
            }
            if done == samples.len() {
                break;
            }
        }
        let Kind { features, inner, .. } = kind;
        let reason = || format!("no algorithm for {features} x {inner} and {asked} rows does without splitting sums");
        let call = "cublasLtMatmulAlgoGetHeuristic";
        best.map(|(_, algo)| algo).ok_or_else(|| GpuError::Call { call, reason: reason() })
    }

    fn candidates(&self, plan: &Plan, kind: &Kind) -> Result<Vec<Heuristic>, GpuError> {
        let lib = &self.lib;
        let mut preference = ptr::null_mut();
        let (mut found, mut count) = (vec![Heuristic::EMPTY; MAX_CANDIDATES], 0);
        let [of_inputs, of_out] = alignments(kind);
        let none = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as usize;
        let workspace_bytes = self.workspace.1 as u64;
        unsafe {
            lt!(lib, cublasLtMatmulPreferenceCreate(&mut preference))?;
            let set = |attribute, value: usize| {
                let value = value as u32;
                lt!(lib, cublasLtMatmulPreferenceSetAttribute(preference, attribute, (&raw const value).cast(), size_of::<u32>()))
            };
            let most = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let most = (most, (&raw const workspace_bytes).cast(), size_of::<u64>());
            let result = lt!(lib, cublasLtMatmulPreferenceSetAttribute(preference, most.0, most.1, most.2))
                .and_then(|()| set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, none))
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

    /// Whether the terms of one sum are added up by several blocks, as far as the library says: it was asked for none that does so.
    fn splits(&self, algo: &cublasLtMatmulAlgo_t) -> bool {
        let get = |attribute| {
            let (mut value, mut written) = (0_u32, 0);
            let size = size_of::<u32>();
            unsafe { lt!(self.lib, cublasLtMatmulAlgoConfigGetAttribute(algo, attribute, (&raw mut value).cast(), size, &mut written)) }
                .map(|()| value)
        };
        let read = [Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM, Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME].map(get);
        if let Some(error) = read.iter().find_map(|value| value.as_ref().err()) {
            self.unreadable.call_once(|| tracing::info!(%error, "cublasLt does not tell of some algorithms whether they split sums"));
        }
        let [parts, scheme] = read.map(Result::ok);
        is_split(parts, scheme)
    }

    /// Whether the algorithm does the plan's product within the workspace.
    fn does(&self, plan: &Plan, algo: &cublasLtMatmulAlgo_t) -> bool {
        let mut result = Heuristic::EMPTY;
        let code = unsafe {
            (self.lib.cublasLtMatmulAlgoCheck)(self.handle, plan.operation, plan.weight, plan.x, plan.out, plan.out, algo, &mut result)
        };
        code == 0 && result.workspace_bytes <= self.workspace.1
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

/// What is asked for `rows` rows: the top of their bucket.
fn bucket(rows: usize) -> usize {
    BUCKETS.into_iter().find(|top| rows <= *top).unwrap_or(BUCKETS[BUCKETS.len() - 1])
}

/// Numbers of rows that the algorithm for `asked` should do: of a bucket its least, an odd one between and its top.
fn samples(asked: usize) -> Vec<usize> {
    let Some(at) = BUCKETS.iter().position(|top| *top == asked) else { return vec![asked] };
    let least = at.checked_sub(1).map_or(1, |before| BUCKETS[before] + 1);
    let beyond = (at + 1 == BUCKETS.len()).then_some(2 * asked);
    [least, ((least + asked) / 2) | 1, asked].into_iter().chain(beyond).collect()
}

/// By the number of parts and the scheme of adding them up, where they are known.
fn is_split(parts: Option<u32>, scheme: Option<u32>) -> bool {
    let none = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
    parts.is_some_and(|parts| parts > 1) || scheme.is_some_and(|scheme| scheme != none)
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

    #[test]
    fn algorithms_are_asked_for_at_the_top_of_a_bucket() {
        assert_eq!([1, 9, 64, 65, 256, 257, 1024, 1025, 8192, 100_000].map(bucket), [64, 64, 64, 256, 256, 1024, 1024, 8192, 8192, 8192]);
        for top in BUCKETS {
            assert!(samples(top).contains(&top));
            assert!(samples(top).into_iter().all(|rows| bucket(rows) == top), "{top}");
        }
        assert_eq!(samples(67), [67]);
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_no_split() {
        for (parts, scheme) in [(None, None), (Some(1), None), (None, Some(0)), (Some(0), Some(0)), (Some(1), Some(0))] {
            assert!(!is_split(parts, scheme), "{parts:?} {scheme:?}");
        }
        for (parts, scheme) in [(Some(2), None), (Some(1), Some(2)), (None, Some(1)), (Some(4), Some(0))] {
            assert!(is_split(parts, scheme), "{parts:?} {scheme:?}");
        }
    }
}
