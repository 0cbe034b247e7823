#![no_std]
//! Types that the kernel program and its loader share.
