//! Compares what a GPU computes with the CPU, and measures it. What `cargo xtask gpu-check --kit` carries to a machine with a card.

fn main() {}
