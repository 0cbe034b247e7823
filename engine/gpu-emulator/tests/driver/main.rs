//! The emulated driver, called as programs call it: what is right goes through in every order of operations, and whatever is wrong is told.
//!
//! An error stays with a process, so that every test has one of its own.

mod amd;
mod capture;
mod card;
mod kernels;
mod lifetimes;
mod order;
mod pinned;
mod process;
mod products;
mod right;
