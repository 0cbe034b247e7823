//! The emulated driver through cudarc: what is right goes through, and whatever is wrong is told.

mod card;
mod right;
