//! Parity with the reference implementation: transformers' greedy ids and log-probabilities, however the work is cut into batches,
//! chunks and blocks, on every instruction set that this machine has.

mod architectures;
mod driver;
mod embedding;
mod quantized;
mod stored;
mod weights;
