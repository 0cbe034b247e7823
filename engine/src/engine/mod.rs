//! The handle that accepts requests and the loop that drives the steps.
