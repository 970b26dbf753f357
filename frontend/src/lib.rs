//! Lifts x86 guest instructions to the metaphrase IR
