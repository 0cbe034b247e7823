//! The drivers against emulated libraries of both vendors, which carry out what is issued in any order that streams and events allow, and
//! check every access.

mod card;
mod copies;
mod failures;
mod graphs;
mod kernels;
mod products;
