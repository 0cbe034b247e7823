//! GPUs: the trait's operations as launches of the kernels beside this file. Which driver carries them out, [`tokenflow_gpu`] decides.

pub mod args;
