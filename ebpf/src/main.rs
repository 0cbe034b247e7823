//! The kernel side of the probe: a sock_ops program that keeps one map entry per watched TCP connection and sends events to a ring.
//!
//! What it does at each callback is in `tokenflow_ebpf_common::handler`; here that logic meets the kernel's context, maps and clock.

#![no_std]
#![no_main]
// Assembly of the BPF target is unstable, as is building `core` for it.
#![feature(asm_experimental_arch)]

mod context;
mod host;

use aya_ebpf::{macros::sock_ops, programs::SockOpsContext};
use tokenflow_ebpf_common::handler::handle;

/// The kernel takes any other answer as a refusal of the callback.
const PROCEED: u32 = 1;

#[sock_ops]
pub fn tokenflow(ctx: SockOpsContext) -> u32 {
    handle(&context::Context(&ctx), &mut host::Kernel(&ctx));
    PROCEED
}

/// The helpers' declared licence: the program is Apache-2.0 or GPL-2.0, and the kernel only knows the latter.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
