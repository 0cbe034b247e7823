//! Probe, score, publish.
