//! Guests of a whole system: modes, segments, paging, exceptions, sensitive instructions. Each
//! runs in the interpreter and every compiled tier, which must agree on the state and on the
//! number of instructions.

mod accesses;
mod apic;
mod contexts;
mod delivery;
mod exceptions;
mod floating;
mod fpu_error;
mod fuzz;
mod harness;
mod interrupts;
mod ladder;
mod loads;
mod modes;
mod paging;
mod ports;
mod registers;
mod rep;
mod sensitive;
mod smc;
mod smm;
mod tables;
mod transfers;
mod walks;
