//! `struct bpf_sock_ops`, read as the verifier wants it.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{EbpfContext, bindings::bpf_sock_ops, helpers::bpf_get_socket_cookie, programs::SockOpsContext};
use tokenflow_ebpf_common::handler::{SockOps, op};

pub struct Context<'a>(pub &'a SockOpsContext);

/// Loads a field by an instruction of its own. The verifier accepts a context field only as a load of the field's width at a constant offset;
/// left to itself the compiler merges neighbours' loads, and computes the offset where two branches read different fields.
macro_rules! load {
    ($context:expr, $width:ident, $offset:expr) => {{
        let value: u64;
        // SAFETY: the kernel gives a valid context for the time of the call, and the offset is that of a field of this width.
        unsafe {
            asm!(
                concat!("{value} = *(", stringify!($width), " *)({context} + {offset})"),
                value = lateout(reg) value,
                context = in(reg) $context.0.ops,
                offset = const $offset,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value as $width
    }};
}

macro_rules! fields {
    ($($name:ident: $width:ident),* $(,)?) => {
        $(
            #[inline(always)]
            fn $name(&self) -> $width {
                load!(self, $width, offset_of!(bpf_sock_ops, $name))
            }
        )*
    };
}

macro_rules! addresses {
    ($($name:ident),*) => {
        $(
            #[inline(always)]
            fn $name(&self) -> [u32; 4] {
                const FIRST: usize = offset_of!(bpf_sock_ops, $name);
                [load!(self, u32, FIRST), load!(self, u32, FIRST + 4), load!(self, u32, FIRST + 8), load!(self, u32, FIRST + 12)]
            }
        )*
    };
}

/// The callback's arguments come right after its number.
const ARGS: usize = offset_of!(bpf_sock_ops, op) + 4;

impl SockOps for Context<'_> {
    fields! {
        op: u32,
        family: u32,
        local_ip4: u32,
        remote_ip4: u32,
        local_port: u32,
        remote_port: u32,
        state: u32,
        srtt_us: u32,
        rtt_min: u32,
        snd_cwnd: u32,
        snd_ssthresh: u32,
        mss_cache: u32,
        packets_out: u32,
        retrans_out: u32,
        total_retrans: u32,
        lost_out: u32,
        sacked_out: u32,
        rate_delivered: u32,
        rate_interval_us: u32,
        data_segs_out: u32,
        bytes_acked: u64,
        bytes_received: u64,
    }

    addresses!(local_ip6, remote_ip6);

    #[inline(always)]
    fn arg0(&self) -> u32 {
        load!(self, u32, ARGS)
    }

    #[inline(always)]
    fn arg1(&self) -> u32 {
        load!(self, u32, ARGS + 4)
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's own context.
        unsafe { bpf_get_socket_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn enable_callbacks(&self) -> Result<(), i64> {
        let others = load!(self, u32, offset_of!(bpf_sock_ops, bpf_sock_ops_cb_flags));
        self.0.set_cb_flags((others | op::CALLBACK_FLAGS) as i32).map_err(i64::from)
    }
}
