//! Uses that are right, in every order that the emulator can choose.

use std::slice::from_raw_parts_mut;

use tokenflow_gpu_emulator::Progress;

use crate::card::{Args, Card};

#[test]
fn copies_and_kernels() {
    let card = Card::open(Progress::Mixed);
    let add = card.function(c"add").unwrap();
    let stream = card.stream();
    let count = 1000_u32;
    let bytes = count as usize * 4;
    let (from, to) = (card.allocate(bytes).unwrap(), card.allocate(bytes).unwrap());
    let (input, output) = (card.pinned(bytes), card.pinned(bytes));
    for i in 0..count {
        // SAFETY: pinned memory of that many words.
        unsafe { input.cast::<u32>().add(i as usize).write(i) };
    }
    card.to_device(from, input, bytes, stream).unwrap();
    card.launch(add, [4, 1, 1], 256, 0, Args { to, from, count, value: 7 }, stream).unwrap();
    card.to_host(output, to, bytes, stream).unwrap();
    card.wait(stream).unwrap();
    // SAFETY: as above, and the copy is complete.
    let output_words = unsafe { from_raw_parts_mut(output.cast::<u32>(), count as usize) };
    assert!(output_words.iter().enumerate().all(|(i, &word)| word == i as u32 + 7));
    card.free(from).unwrap();
    card.free(to).unwrap();
    card.free_pinned(input).unwrap();
    card.free_pinned(output).unwrap();
}
